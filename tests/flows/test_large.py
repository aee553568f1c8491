"""Ten thousand nodes. No recursion, no round trip a level, no minute."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from flowrun import Flowrun, any_of
from tests.model import invariants

MANY = 10_000


@pytest.fixture
def noop(app: Flowrun) -> Any:
    @app.handler(attempts=1)
    async def noop(fail: bool = False) -> None:
        if fail:
            raise ValueError("as written")

    return noop


async def counts(connection: asyncpg.Connection) -> dict[str, int]:
    await invariants.check(connection, at_rest=False)
    rows = await connection.fetch("select state, count(*) from flowrun.job_status group by state")
    return dict(rows)


async def test_a_failing_root_with_a_long_chain_and_a_wide_fan_below(app, noop, connection) -> None:
    flow = app.flow("below", output="root")
    root = flow.add(noop.job(fail=True), name="root")
    chain = flow.chain([noop.job()] * MANY, after=root)
    fan = flow.group([noop.job()] * MANY, after=root)
    flow.add(noop.job(), after=[*(node.finished for node in fan), chain[-1].finished], name="anyway")
    flow.add(noop.job(), after=[fan[0], chain[-1]], name="never")
    async with app.worker(concurrency=10):
        run = await flow.dispatch()
        assert (await run["anyway"].wait(timeout=50)).state == "succeeded"
        assert (await run["never"].wait(timeout=50)).state == "skipped"
        assert (await run["noop-20000"].status()).state == "skipped"
        assert (await run.wait(timeout=50)).state == "failed"
    assert await counts(connection) == {"failed": 1, "skipped": 2 * MANY + 1, "succeeded": 1}


async def test_one_to_ten_thousand_to_one(app, noop, connection) -> None:
    flow = app.flow("fan")
    fan = flow.group([noop.job()] * MANY, after=flow.add(noop.job(), name="first"))
    flow.add(noop.job(), after=fan, name="last")
    async with app.worker(concurrency=50):
        run = await flow.dispatch()
        assert await run.result(timeout=50) is None
    assert await counts(connection) == {"succeeded": MANY + 2}


async def test_one_failure_among_ten_thousand(app, noop, connection) -> None:
    flow = app.flow("fan")
    fan = flow.group([noop.job()] * (MANY - 1), after=flow.add(noop.job(), name="first"))
    fan.insert(MANY // 2, flow.add(noop.job(fail=True), after="first", name="bad"))
    flow.add(noop.job(), after=fan, name="all")
    flow.add(noop.job(), after=any_of(*fan), name="any")
    flow.add(noop.job(), after=[node.finished for node in fan], name="finished")
    async with app.worker(concurrency=50):
        run = await flow.dispatch()
        status = await run.wait(timeout=50)
    assert [status[name].state for name in ("bad", "all", "any", "finished")] == [
        "failed", "skipped", "succeeded", "succeeded",
    ]  # fmt: skip
    assert await counts(connection) == {"succeeded": MANY + 2, "failed": 1, "skipped": 1}


async def test_ten_thousand_branches_not_taken(app, noop, connection) -> None:
    """A success that skips: the slow way."""
    flow = app.flow("branches")
    root = flow.add(noop.job(), name="root")
    flow.group([noop.job()] * MANY, after=root.failed)
    async with app.worker(concurrency=10):
        run = await flow.dispatch()
        assert (await run.wait(timeout=50)).state == "succeeded"
    assert await counts(connection) == {"succeeded": 1, "skipped": MANY}


async def test_a_skip_through_many_flows_inside(app, noop, connection) -> None:
    flow = app.flow("outer")
    before: Any = flow.add(noop.job(fail=True), name="bad")
    for _ in range(500):
        inner = app.flow("inner")
        x = inner.add(noop.job())
        inner.add(noop.job(), after=x.finished)
        before = flow.add(inner, after=before)
    async with app.worker(concurrency=10):
        run = await flow.dispatch()
        assert (await run.wait(timeout=50)).state == "failed"
    assert await counts(connection) == {"failed": 1, "skipped": 1000}


async def test_a_long_chain_runs_step_by_step(app, connection) -> None:
    ran = []

    @app.handler
    async def note(n: int) -> None:
        ran.append(n)

    async with app.worker(concurrency=10):
        await (await app.chain([note.job(n=n) for n in range(500)]).dispatch()).result(timeout=50)
    assert ran == list(range(500))
