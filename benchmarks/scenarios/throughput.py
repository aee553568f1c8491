"""No-op jobs drained from a backlog by one process."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FloorSide, FlowrunSide, drain_backlog
from benchmarks.work import flat


def contests(dsn: str, scale: float) -> list[Contest]:
    """50,000 jobs, at two concurrencies."""
    work = flat(max(1, round(50_000 * scale)))
    return [
        Contest(
            f"{work.jobs:,} no-op jobs, concurrency {concurrency}",
            partial(drain_backlog, FlowrunSide, dsn, work, concurrency=concurrency, vacuum=True),
            partial(drain_backlog, FloorSide, dsn, work, concurrency=concurrency, vacuum=True),
            [
                Figure("rate", "jobs/s", goal=Goal(0.32, at_least=True)),
                Figure("cpu_us", "us", "Python CPU a job"),
            ],
        )
        for concurrency in (100, 200)
    ]
