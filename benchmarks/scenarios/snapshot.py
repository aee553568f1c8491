"""What an old snapshot costs: somebody's transaction is open, so that nothing which is deleted can be cleared away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FloorSide, FlowrunSide, drain_backlog
from benchmarks.work import flat


def contests(dsn: str, scale: float) -> list[Contest]:
    """200,000 jobs with a snapshot from before, against the same without, and beside the floor."""
    work = flat(max(1, round(200_000 * scale)))
    held = partial(drain_backlog, dsn=dsn, work=work, concurrency=100, vacuum=True, during=snapshot_held)
    free = partial(drain_backlog, dsn=dsn, work=work, concurrency=100, vacuum=True)
    return [
        Contest(
            f"{work.jobs:,} no-op jobs, a snapshot held open",
            partial(held, FlowrunSide),
            partial(free, FlowrunSide),
            [Figure("rate", "jobs/s", goal=Goal(0.6, at_least=True))],
            against="none held",
        ),
        Contest(
            f"{work.jobs:,} no-op jobs, a snapshot held open",
            partial(held, FlowrunSide),
            partial(held, FloorSide),
            [Figure("rate", "jobs/s")],
        ),
    ]


@asynccontextmanager
async def snapshot_held(database: str) -> AsyncIterator[None]:
    """Like somebody's report, or a backup, that takes all day."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval("select count(*) from pg_class")
            yield
    finally:
        connection.terminate()
