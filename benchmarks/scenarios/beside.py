"""The same work by everybody: flowrun, the floor and peers, each in processes of its own that are watched from outside.

The other scenarios take their times from the database and look closer; here everything a user waits for is inside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from benchmarks.contest import Contest, Figure, Goal, Run
from benchmarks.peers.catalogue import FLOOR, FLOWRUN, Peer
from benchmarks.peers.driven import GAP, chains, drain, fan, latency
from benchmarks.peers.stores import Stores
from benchmarks.scenarios.latency import measure

FAST = {"graphile-worker", "pgqueuer", "pg-boss", "bullmq"}
"""Those that a backlog of 200,000 is worth waiting for."""
POSTGRES_PEERS = ("graphile-worker", "pgqueuer", "pg-boss", "oban", "procrastinate", "dbos", "chancy")


def _everybody(run: Callable[..., Awaitable[Mapping[str, float]]], stores: Stores, peers: Sequence[Peer], *size: int):
    def of(peer: Peer) -> Run:
        return partial(run, peer, stores, *size)

    return of(FLOWRUN), of(FLOOR), {peer.name: of(peer) for peer in peers}


def throughput(stores: Stores, scale: float, peers: Sequence[Peer]) -> list[Contest]:
    """20,000 and 200,000 no-op jobs, by one process and by two."""
    small, large = (max(20, round(jobs * scale)) for jobs in (20_000, 200_000))
    fast = [peer for peer in peers if peer.name in FAST]
    goals = {
        "graphile-worker": Goal(1.2, at_least=True),
        "pgqueuer": Goal(4.0, at_least=True),
    }
    found = []
    for jobs, processes, who in ((small, 1, peers), (large, 1, fast), (small, 2, fast), (large, 2, fast)):
        ours, floor, others = _everybody(drain, stores, who, jobs, processes)
        figures = [Figure("rate", "jobs/s")]
        if processes == 1:
            figures = [Figure("rate", "jobs/s", goal=Goal(0.7, at_least=True), beside=goals)]
        if processes == 1 and jobs == small:
            figures.append(Figure("dispatch_rate", "jobs/s", "dispatching them in bulk"))
        name = f"{jobs:,} no-op jobs, {processes} process{'es' if processes > 1 else ''}"
        found.append(Contest(name, ours, floor, figures, peers=others))
    one, two = (partial(drain, FLOWRUN, stores, large, processes) for processes in (1, 2))
    goal = Goal(1.1, at_least=True)
    found.append(
        Contest(
            f"{large:,} no-op jobs, 2 processes against 1", two, one, [Figure("rate", "jobs/s", goal=goal)], "1 process"
        )
    )
    return found


def pick_up(stores: Stores, scale: float, peers: Sequence[Peer]) -> list[Contest]:
    """An idle worker in another process; and flowrun's in its own, beside the fastest that stores in Redis."""
    jobs = max(10, round(300 * scale))
    ours, floor, others = _everybody(latency, stores, peers, jobs)
    figures = [
        Figure("p50", "ms", "p50", goal=Goal(1.0), beside=dict.fromkeys(POSTGRES_PEERS, Goal(1.0))),
        Figure("p99", "ms", "p99", goal=Goal(5.0, of_flowrun=True)),
    ]
    found = [Contest(f"pick-up beside others, {jobs} jobs {GAP} ms apart", ours, floor, figures, peers=others)]
    if (bullmq := others.get("bullmq")) is not None:
        found.append(
            Contest(
                f"pick-up in the same process beside another's, {jobs} jobs {GAP} ms apart",
                partial(measure, stores.dsn, jobs, "flowrun", True, False),
                bullmq,
                [Figure("p50", "ms", "p50", goal=Goal(1.0)), Figure("p99", "ms", "p99")],
                against="bullmq",
            )
        )
    return found


def side_by_side(stores: Stores, scale: float, peers: Sequence[Peer]) -> list[Contest]:
    """One chain of 100, and 50 of 20."""
    found = []
    for number, length, redis, postgres in ((1, 100, 3.0, 6.0), (50, 20, 5.0, 6.0)):
        number, length = (max(1, round(number * scale)), 20) if number > 1 else (1, max(2, round(length * scale)))
        ours, floor, others = _everybody(chains, stores, peers, number, length)
        goals = dict.fromkeys(POSTGRES_PEERS, Goal(postgres, at_least=True)) | {"bullmq": Goal(redis, at_least=True)}
        figure = Figure("rate", "steps/s", beside=goals)
        found.append(Contest(f"{number} x {length} beside others", ours, floor, [figure], peers=others))
    return found


def fan_out(stores: Stores, scale: float, peers: Sequence[Peer]) -> list[Contest]:
    """1 -> 1,000 -> 1."""
    width = max(2, round(1_000 * scale))
    ours, floor, others = _everybody(fan, stores, peers, width)
    goals = dict.fromkeys([*POSTGRES_PEERS, "celery", "bullmq"], Goal(0.2))
    figure = Figure("ms", "ms", beside=goals)
    return [Contest(f"1 -> {width:,} -> 1 beside others", ours, floor, [figure], peers=others)]
