"""What is measured, one module a scenario: ``contests(dsn, scale)`` gives the comparisons.

``scale`` multiplies every size; 1 is what the goals are about, less is for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.contest import Contest
from benchmarks.scenarios import chain, dispatch, fanout, latency, throughput

SCENARIOS: dict[str, Callable[[str, float], Sequence[Contest]]] = {
    "throughput": throughput.contests,
    "latency": latency.contests,
    "chain": chain.contests,
    "fanout": fanout.contests,
    "dispatch": dispatch.contests,
}
