"""A layered random DAG, run: each of 10,000 nodes waits for three of the layer before."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Contest, Figure
from benchmarks.sides import FloorSide, FlowrunSide, drain_backlog, drain_fresh
from benchmarks.work import layered


def contests(dsn: str, scale: float) -> list[Contest]:
    """100 layers of 100: with an idle worker, and stored before the worker starts."""
    dag = layered(max(2, round(100 * scale)), 100 if scale >= 1 else max(3, round(100 * scale)))
    return [
        Contest(
            f"{dag.jobs:,} nodes, {len(dag.edges):,} edges, {when}",
            partial(run, FlowrunSide, dsn, dag, concurrency=100),
            partial(run, FloorSide, dsn, dag, concurrency=100),
            [Figure("ms", "ms")],
        )
        for when, run in (("idle worker", drain_fresh), ("stored before", drain_backlog))
    ]
