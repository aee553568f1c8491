"""Fan-out and fan-in: 1 -> n -> 1, whatever the planner believes about the tables."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FloorSide, FlowrunSide, drain_backlog, drain_fresh
from benchmarks.work import fan, layered


def contests(dsn: str, scale: float) -> list[Contest]:
    """1 -> 1,000 -> 1 and more, before and after `analyze`; a DAG of 3 parents each."""
    small, large, huge = (max(2, round(width * scale)) for width in (1_000, 10_000, 100_000))
    cases = [
        (small, "never analyzed", partial(drain_fresh, analyze=False)),
        (large, "never analyzed", partial(drain_fresh, analyze=False)),
        (large, "analyzed while empty", partial(drain_fresh, analyze=True)),
        (large, "analyzed while full", partial(drain_backlog, analyze=True)),
        (huge, "never analyzed", partial(drain_fresh, analyze=False)),
        (huge, "analyzed while empty", partial(drain_fresh, analyze=True)),
    ]
    found = [
        Contest(
            f"1 -> {width:,} -> 1, {when}",
            partial(run, FlowrunSide, dsn, fan(width), concurrency=100),
            partial(run, FloorSide, dsn, fan(width), concurrency=100),
            _figures(width),
        )
        for width, when, run in cases
    ]
    dag = layered(20, max(3, round(500 * scale)))
    # The floor might fall into the same hole: what analyze changes is flowrun against itself.
    return found + [
        Contest(
            f"{name}, analyzed while empty",
            partial(drain_fresh, FlowrunSide, dsn, work, concurrency=100, analyze=True),
            partial(drain_fresh, FlowrunSide, dsn, work, concurrency=100),
            [Figure("ms", "ms", goal=Goal(1.3))],
            against="never analyzed",
        )
        for name, work in ((f"1 -> {large:,} -> 1", fan(large)), (f"layered DAG of {dag.jobs:,}", dag))
    ]


def _figures(width: int) -> list[Figure]:
    """With the dispatch and without; a width of 100,000 has a goal for both."""
    if width < 100_000:
        return [Figure("ms", "ms", goal=Goal(1.4)), Figure("with_dispatch_ms", "ms", "with dispatch")]
    goal = Goal(3_000.0, of_flowrun=True)
    return [Figure("ms", "ms", goal=Goal(1.4)), Figure("with_dispatch_ms", "ms", "with dispatch", goal=goal)]
