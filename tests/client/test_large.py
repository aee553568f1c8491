"""Flows so large that they are copied in: the same rows as if they were not, and no more memory than they must have."""

from __future__ import annotations

import tracemalloc
from typing import Any

import asyncpg
import pytest

from flowrun import Flowrun, Job, any_of, at_least
from flowrun.core import plan as plans
from flowrun.core import rows
from flowrun.core.plan import JobRow
from flowrun.store import copied, insert

NODES = 20_000


def everything(app: Flowrun) -> Any:
    """A node of each kind that is stored in another way, some often enough to fill windows."""

    @app.handler(queue="größe", attempts=5, timeout=3.0)
    async def plain(text: str = "") -> dict[str, int]:
        return {}

    @app.handler
    async def other(value: Any = None) -> None: ...

    @app.handler(delay=5.0)
    async def later() -> None: ...

    @app.handler
    async def asks(job: Job) -> None: ...

    flow = app.flow("große", tags=["a"])
    first = flow.add(plain.job(text='"é\\ \n'), name='first "é"')
    fan = flow.group([plain.job(text=str(number)) for number in range(60)], after=first)
    flow.add(other.job(value=fan[3].result["n"]), after=[node.finished for node in fan], name="bound")
    flow.add(other.job(), after=fan)
    flow.add(other.job().options(priority=1, queue="else"), after=[fan[1].failed, fan[2].finished, fan[1].finished])
    flow.add(other.job(), after=at_least(2, *fan[:5]), optional=True)
    flow.add(other.job(), after=[fan[0], any_of(fan[1], fan[2])])
    flow.add(other.job(), after=fan[4].when("n", ">", 3))
    flow.add(later.job(), after=[fan[7], fan[7]])
    flow.add(asks.job(), after=[first, fan[8]])
    flow.add(other.job().options(start_by=60.0), after="late")
    flow.add(other.job(), after=fan[9], name="late", cleanup=True)
    inner = app.flow("inner")
    inner.chain(plain.job(), other.job())
    flow.add(inner, after=fan[10])
    flow.chain([plain.job() for _ in range(30)])
    flow.add(plain.job(), compensate=other.job())
    flow.on_finish(other.job())
    return flow


async def test_what_is_copied_in_is_what_was_written(
    app: Flowrun, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "LARGE", 10)
    monkeypatch.setattr(insert, "COPY_FROM", 10)
    monkeypatch.setattr(rows, "WINDOW", 16)
    monkeypatch.setattr(copied, "ROWS", 3)
    monkeypatch.setattr(copied, "CHUNK", 500)
    flow = everything(app)
    async with app:
        compiled = app.client.plan_flow(flow)
        assert compiled.draft.source is not None
        assert await app.client.writing.write(compiled.draft) == {}
        assert await app.client.writing.write(compiled.draft) == {}  # again, after a commit that nobody heard of
        assert compiled.draft.source is not None
    plan = compiled.plan
    found = await connection.fetch(f"select {', '.join(JobRow._fields)} from flowrun.jobs")
    alike = ("args", "bindings", "options")
    assert {row["id"]: {**row, **dict.fromkeys(alike)} for row in found} == {
        row.id: {**row._asdict(), **dict.fromkeys(alike)} for row in plan.jobs
    }
    for column in alike:  # as jsonb has them
        texts = [getattr(row, column) for row in plan.jobs]
        stored = await connection.fetch("select u.text::jsonb from unnest($1::text[]) as u (text)", texts)
        expected = dict(zip([row.id for row in plan.jobs], [row[0] for row in stored], strict=True))
        assert {row["id"]: row[column] for row in found} == expected
    edges = await connection.fetch("select parent_id, child_id, condition from flowrun.edges where test is null")
    assert sorted(map(tuple, edges)) == sorted(plan.edges)
    assert await connection.fetchval("select count(*) from flowrun.edges where test is not null") == len(plan.tests)
    assert sorted(map(tuple, await connection.fetch("select id, need, open from flowrun.blocked"))) == sorted(
        plan.blocked
    )
    assert {row[0] for row in await connection.fetch("select id from flowrun.ready")} == {row.id for row in plan.free}
    assert compiled.names['first "é"'][0] == next(row.id for row in plan.jobs if row.name == 'first "é"')


async def test_a_node_of_a_large_flow_costs_a_kilobyte(app: Flowrun) -> None:
    """What Python allocates, at most: for the flow as written, and until all of its rows were made. It was 2.5 kB."""

    @app.handler
    async def noop(order_id: int) -> None: ...

    def written(count: int) -> Any:
        flow = app.flow("large")
        layer: list[Any] = []
        for number in range(count):
            if number % 100 == 0:
                above, layer = layer, []
            layer.append(
                flow.add(
                    noop.job(order_id=1), after=[above[number * step % 100] for step in (1, 3, 7)] if above else ()
                )
            )
        return flow

    async def dispatched(count: int) -> None:
        source = app.client.plan_flow(written(count)).draft.source
        assert source is not None
        for made in (copied.jobs(source.alike()), copied.edges(source), copied.blocked(source.counters())):
            async for _ in copied.sent(made):
                pass
        assert len([*source.others()]) == 1

    await dispatched(1_000)
    tracemalloc.start()
    try:
        await dispatched(NODES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / NODES < 1_200
