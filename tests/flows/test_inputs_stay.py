"""What a job is given is settled by its first attempt: arguments, and what it knows of its parents."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import Discard, Job, Retry, Snooze, any_of, backoff, race


@pytest.fixture
def seen() -> list[tuple[object, dict[str, str | None]]]:
    return []


@pytest.fixture
def late(app, seen):
    """``late(after=...)``: a node that is released before ``b`` has ended, and tries again when it has."""
    ended = asyncio.Event()

    @app.handler
    async def a() -> str:
        return "a"

    @app.handler(attempts=1)
    async def b() -> str:
        while not seen:
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                while not seen:
                    await asyncio.sleep(0.005)
                raise
        return "b"

    @app.handler(attempts=3, backoff=backoff.constant(0.0))
    async def child(job: Job, given: list[str | None], how: str) -> str:
        seen.append((given, {name: parent.outcome for name, parent in job.parents.items()}))
        if len(seen) < 3:
            await ended.wait()
            if how == "snooze":
                raise Snooze(0.0)
            if how == "discard":
                raise Discard("until somebody retries")
            raise Retry(0.0) if how == "retry" else ValueError("again")
        return "done"

    child.ended = ended
    return child


@pytest.mark.parametrize("how", ["snooze", "retry", "fail", "discard"])
@pytest.mark.parametrize("join", [any_of, race])
async def test_a_later_attempt_sees_what_the_first_one_saw(app, seen, late, until, how, join) -> None:
    flow = app.flow("f")
    a = flow.add(app.job("a"), name="a")
    b = flow.add(app.job("b"), name="b")
    flow.add(late.job([a.result, b.result], how), after=join(a, b), name="child")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: len(seen) == 1)
        await run["b"].wait(timeout=10)
        late.ended.set()
        if how == "discard":
            for _ in range(2):
                await run["child"].wait(timeout=10)
                await run["child"].retry()
        assert await run["child"].result(timeout=10) == "done"
    assert seen == [(["a", None], {"a": "succeeded", "b": None})] * 3
