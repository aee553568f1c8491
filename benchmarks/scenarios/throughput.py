"""No-op jobs drained from a backlog by one process."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FloorSide, FlowrunSide, drain_backlog
from benchmarks.work import flat

TIMED = partial(FlowrunSide, timeout=30.0)


def contests(dsn: str, scale: float) -> list[Contest]:
    """20,000 and 200,000 jobs; the larger also with a timeout for each, and with more consumers."""
    small, large = (flat(max(1, round(jobs * scale))) for jobs in (20_000, 200_000))
    drain = partial(drain_backlog, vacuum=True)
    found = []
    for work, concurrency in ((small, 100), (large, 100), (large, 200)):
        goal = Goal(8.0, of_flowrun=True) if work is large and concurrency == 100 else None
        found.append(
            Contest(
                f"{work.jobs:,} no-op jobs, concurrency {concurrency}",
                partial(drain, FlowrunSide, dsn, work, concurrency=concurrency),
                partial(drain, FloorSide, dsn, work, concurrency=concurrency),
                [
                    Figure("rate", "jobs/s", goal=Goal(0.7, at_least=True)),
                    Figure("cpu_us", "us", "Python CPU a job", goal=goal),
                ],
            )
        )
    timed = Contest(
        f"{large.jobs:,} no-op jobs with a timeout",
        partial(drain, TIMED, dsn, large, concurrency=100),
        partial(drain, FlowrunSide, dsn, large, concurrency=100),
        [
            Figure("rate", "jobs/s"),
            Figure("cpu_us", "us", "Python CPU a job", goal=Goal(12.0, of_flowrun=True)),
        ],
        against="no timeout",
    )
    return [*found, timed]
