"""What is measured, one module a scenario: ``contests(dsn, scale)`` gives the comparisons.

``scale`` multiplies every size; 1 is what the goals are about, less is for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.contest import Contest
from benchmarks.peers.catalogue import Peer
from benchmarks.peers.stores import Stores
from benchmarks.scenarios import (
    backlog,
    beside,
    chain,
    dag,
    dispatch,
    fanout,
    idle,
    latency,
    limits,
    mixed,
    parts,
    queues,
    snapshot,
    soak,
    throughput,
)

SCENARIOS: dict[str, Callable[[str, float], Sequence[Contest]]] = {
    "throughput": throughput.contests,
    "latency": latency.contests,
    "chain": chain.contests,
    "fanout": fanout.contests,
    "dag": dag.contests,
    "dispatch": dispatch.contests,
    "mixed": mixed.contests,
    "queues": queues.contests,
    "limits": limits.contests,
    "parts": parts.contests,
    "idle": idle.contests,
    "snapshot": snapshot.contests,
    "backlog": backlog.contests,
    "soak": soak.contests,
}
BESIDE: dict[str, Callable[[Stores, float, Sequence[Peer]], Sequence[Contest]]] = {
    "throughput": beside.throughput,
    "latency": beside.pick_up,
    "chain": beside.side_by_side,
    "fanout": beside.fan_out,
}
"""Of a scenario, what runs in processes of its own, beside peers."""
