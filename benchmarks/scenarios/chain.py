"""Chains of no-op steps: alone, where only latency counts, and many beside each other."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.floor import store
from benchmarks.sides import FloorSide, FlowrunSide, drain_fresh
from benchmarks.work import Work, chains


def contests(dsn: str, scale: float) -> list[Contest]:
    """One chain of 100, against as many single-row commits and against the floor; 50 x 20; 2,000 x 20."""
    steps = max(2, round(100 * scale))
    one = chains(1, steps)
    few = chains(max(2, round(50 * scale)), 20)
    many = chains(max(2, round(2_000 * scale)), 20)
    alone = partial(drain_fresh, FlowrunSide, dsn, one, concurrency=100)
    return [
        Contest(
            f"1 x {steps}",
            alone,
            partial(commits, dsn, steps),
            [Figure("ms", "ms", goal=Goal(3.0))],
            against=f"{steps} commits",
        ),
        _chains(dsn, f"1 x {steps}", one, Figure("ms", "ms")),
        _chains(dsn, f"{few.jobs // 20:,} x 20", few, Figure("rate", "jobs/s")),
        _chains(dsn, f"{many.jobs // 20:,} x 20", many, Figure("rate", "jobs/s", goal=Goal(0.75, at_least=True))),
    ]


def _chains(dsn: str, name: str, work: Work, figure: Figure) -> Contest:
    return Contest(
        name,
        partial(drain_fresh, FlowrunSide, dsn, work, concurrency=100),
        partial(drain_fresh, FloorSide, dsn, work, concurrency=100),
        [figure],
    )


async def commits(dsn: str, number: int) -> dict[str, float]:
    """So many rows, each in a durable commit of its own, one after the other."""
    async with servers.fresh_database(dsn) as database:
        connection = await store.connect(database)
        await connection.execute(store.SQL["schema"])
        await servers.tidy(database, analyze=False)
        statement = await connection.prepare("insert into floor.commits (id, result) values ($1, $2)")
        for id in store.new_ids(20):
            await statement.fetch(id, b'{"ok":true}')
        ids = store.new_ids(number)
        start = time.perf_counter()
        for id in ids:
            await statement.fetch(id, b'{"ok":true}')
        seconds = time.perf_counter() - start
        connection.terminate()
    return {"ms": seconds * 1e3}
