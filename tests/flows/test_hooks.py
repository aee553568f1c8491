"""Hooks are told of what happens, and change nothing; middleware runs around every handler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowrun import CallNext, ConfigurationError, FlowRun, HookEvent, Job, JobError, JobFailed, backoff


@pytest.fixture
def told(app) -> list[tuple[Any, ...]]:
    """What all hooks were told."""
    events: list[tuple[Any, ...]] = []

    @app.on("job_started")
    async def started(job: Job) -> None:
        events.append(("started", job.type, job.attempt))

    @app.on("attempt_failed")
    def in_thread(event: HookEvent) -> None:
        assert event.error is not None
        events.append(("attempt", event.error.job_type, event.error.attempt, event.error.message))

    @app.on("job_failed")
    async def failed(job: Job, error: JobError | None, event: HookEvent) -> None:
        events.append(("failed", job.type, event.outcome, event.reason, error and error.message))

    @app.on("job_succeeded")
    async def succeeded(whatever) -> None:
        events.append(("succeeded", whatever.job.type, whatever.outcome))

    @app.on("flow_finished")
    async def finished(flow: FlowRun, event: HookEvent) -> None:
        events.append(("flow", flow.name, event.outcome, (await flow.status()).state))

    @app.on("job_started")
    @app.on("attempt_failed")
    @app.on("job_failed")
    @app.on("job_succeeded")
    @app.on("flow_finished")
    async def broken(event: HookEvent) -> None:
        raise RuntimeError("a hook that raises")

    return events


async def test_all_kinds(app, told, until) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def work(fail: int = 0) -> None:
        if fail:
            raise ValueError("no")

    flow = app.flow("order")
    flow.add(work.job(), name="a")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        await until(lambda: len(told) == 3)
        assert sorted(told) == [
            ("flow", "order", "succeeded", "succeeded"),
            ("started", "work", 1),
            ("succeeded", "work", "succeeded"),
        ]
        told.clear()
        with pytest.raises(JobFailed):
            await (await work.dispatch(fail=1)).result(timeout=10)
        await until(lambda: len(told) == 5)
        assert sorted(told) == [
            ("attempt", "work", 1, "no"),
            ("attempt", "work", 2, "no"),
            ("failed", "work", "failed", "no", "no"),
            ("started", "work", 1),
            ("started", "work", 2),
        ]
        told.clear()
        later = await work.job().options(delay=60.0).dispatch()
        await later.cancel(reason="no longer wanted")
        await until(lambda: told)
        assert told == [("failed", "work", "cancelled", "no longer wanted", None)]


async def test_of_a_running_job_that_is_cancelled(app, told, until) -> None:
    begun = asyncio.Event()

    @app.handler
    async def hang() -> None:
        begun.set()
        await asyncio.sleep(600)

    async with app, app.worker(concurrency=1):
        run = await hang.dispatch()
        await begun.wait()
        await run.cancel(reason="enough")
        await until(lambda: ("failed", "hang", "cancelled", "enough", None) in told)


async def test_hooks_that_cannot_be(app) -> None:
    with pytest.raises(ConfigurationError, match="no hook 'job_done'; hooks are attempt_failed"):
        app.on("job_done")(print)
    with pytest.raises(ConfigurationError, match="takes run; a hook's parameters are among event, job, error, flow"):

        @app.on("job_failed")
        async def wrong(job: Job, run: object) -> None: ...


async def test_middleware_runs_around_handlers_of_all_kinds(app) -> None:
    seen: list[str] = []

    @app.middleware
    async def outer(job: Job, call_next: CallNext) -> Any:
        seen.append(f"outer {job.type}")
        try:
            return await call_next(job)
        finally:
            seen.append("outer ends")

    @app.middleware
    async def inner(job: Job, call_next: CallNext) -> Any:
        value = await call_next()
        return value + job.attempt

    @app.handler
    async def plain(number: int) -> int:
        return number

    @app.handler
    def threaded(job: Job, number: int) -> int:
        return number

    @app.handler(attempts=1, timeout=5.0)
    async def fails() -> int:
        raise ValueError("as asked")

    async with app, app.worker(concurrency=2):
        assert await (await plain.dispatch(1)).result(timeout=10) == 2
        assert await (await threaded.dispatch(number=5)).result(timeout=10) == 6
        with pytest.raises(JobFailed, match="as asked"):
            await (await fails.dispatch()).result(timeout=10)
    assert seen == [s for name in ("plain", "threaded", "fails") for s in (f"outer {name}", "outer ends")]
    with pytest.raises(ConfigurationError, match="async function"):
        app.middleware(lambda job, call_next: None)


async def test_middleware_sees_a_timeout_and_can_refuse(app) -> None:
    @app.middleware
    async def guard(job: Job, call_next: CallNext) -> Any:
        if "forbidden" in job.tags:
            raise PermissionError("not this one")
        return await call_next(job)

    @app.handler(attempts=1, timeout=0.05)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async with app, app.worker(concurrency=2):
        with pytest.raises(JobFailed, match=r"longer than 0\.05 s"):
            await (await slow.dispatch(30.0)).result(timeout=10)
        with pytest.raises(JobFailed, match="not this one"):
            await (await slow.job(0.0).options(tags=["forbidden"]).dispatch()).result(timeout=10)
        assert await (await slow.dispatch(0.0)).result(timeout=10) == "done"
