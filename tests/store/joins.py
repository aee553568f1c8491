"""Many workers settling one graph side by side, with everything that goes wrong in production, and an independent check."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from uuid import UUID

from flowrun import mint
from flowrun.core.attempt import Claimed, Ending
from flowrun.core.states import Outcome
from flowrun.store import insert, upkeep
from flowrun.store.settle import Leases, Settled
from flowrun.store.statement import Statements
from tests.store.stage import Worker, again, connections, failed, job_row, plan_of, succeeded

SUCCEEDED, FAILED, FINISHED = 0, 1, 2
TRUTH = {
    # (outcome, optional): conditions that are satisfied
    (Outcome.SUCCEEDED, False): {SUCCEEDED, FINISHED},
    (Outcome.SUCCEEDED, True): {SUCCEEDED, FINISHED},
    (Outcome.FAILED, False): {FAILED, FINISHED},
    (Outcome.FAILED, True): {SUCCEEDED, FAILED, FINISHED},
    (Outcome.SKIPPED, False): {FINISHED},
    (Outcome.SKIPPED, True): {FINISHED},
}


@dataclass
class Graph:
    """Nodes in topological order, edges, how many edges a node needs where not all, and who will fail."""

    nodes: list[UUID]
    edges: list[tuple[UUID, UUID, int]]
    needs: dict[UUID, int] = field(default_factory=dict)
    fails: set[UUID] = field(default_factory=set)
    optional: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.parents: dict[UUID, list[tuple[UUID, int]]] = defaultdict(list)
        self.children: dict[UUID, list[UUID]] = defaultdict(list)
        for parent, child, condition in self.edges:
            self.parents[child].append((parent, condition))
            self.children[parent].append(child)

    def need(self, node: UUID) -> int:
        return self.needs.get(node, len(self.parents[node]))

    async def insert(self, connection: Any, sql: Statements) -> None:
        rows = [job_row(id, optional=id in self.optional) for id in self.nodes]
        await insert.insert_flow(connection, sql, plan_of(rows, self.edges, self.needs))

    def expected(self) -> dict[UUID, Outcome]:
        """How every node must end, from nothing but the graph."""
        ended: dict[UUID, Outcome] = {}
        for node in self.nodes:
            satisfied = sum(
                condition in TRUTH[ended[parent], parent in self.optional] for parent, condition in self.parents[node]
            )
            if satisfied < self.need(node):
                ended[node] = Outcome.SKIPPED
            else:
                ended[node] = Outcome.FAILED if node in self.fails else Outcome.SUCCEEDED
        return ended

    async def violations(self, connection: Any) -> Iterator[str]:
        """What is wrong in the database with no settle under way: every node's place and counters, recomputed."""
        rows = await connection.fetch("select id, outcome, started_at, finished_at from flowrun.finished")
        ended = {row[0]: Outcome(row[1]) for row in rows}
        times = {row[0]: (row[2], row[3]) for row in rows}
        blocked = {
            row[0]: (row[1], row[2]) for row in await connection.fetch("select id, need, open from flowrun.blocked")
        }
        free: Counter[UUID] = Counter()
        for table in ("ready", "scheduled"):
            free.update(row[0] for row in await connection.fetch(f"select id from flowrun.{table}"))
        for row in await connection.fetch("select unnest(jobs) from flowrun.leases"):
            if row[0] not in ended:
                free[row[0]] += 1
        return chain(self._misplaced(ended, blocked, free), self._early(ended, times))

    def _early(self, ended: dict[UUID, Outcome], times: dict[UUID, tuple[Any, Any]]) -> Iterator[str]:
        """Nodes that started before enough of their edges were satisfied."""
        for node, outcome in ended.items():
            if outcome is not Outcome.SKIPPED:
                satisfied = sum(
                    parent in ended
                    and times[parent][1] <= times[node][0]
                    and condition in TRUTH[ended[parent], parent in self.optional]
                    for parent, condition in self.parents[node]
                )
                if satisfied < self.need(node):
                    yield f"{node} started early, with {satisfied} of {self.need(node)} edges satisfied"

    def _misplaced(
        self, ended: dict[UUID, Outcome], blocked: dict[UUID, tuple[int, int]], free: Counter[UUID]
    ) -> Iterator[str]:
        for node in self.nodes:
            places = (node in ended) + (node in blocked) + free[node]
            if places != 1:
                yield f"{node} stands in {places} places"
            satisfied = undecided = 0
            for parent, condition in self.parents[node]:
                if parent not in ended:
                    undecided += 1
                elif condition in TRUTH[ended[parent], parent in self.optional]:
                    satisfied += 1
            need = self.need(node)
            skipped = ended.get(node) is Outcome.SKIPPED
            if satisfied >= need:
                if node in blocked:
                    yield f"{node} is lost: {satisfied} of {need} edges are satisfied and it still waits"
                elif skipped:
                    yield f"{node} was skipped, though {satisfied} of {need} edges are satisfied"
            elif satisfied + undecided < need:
                if not skipped:
                    yield f"{node} was not skipped, though only {satisfied} + {undecided} of {need} can be satisfied"
            elif blocked.get(node) != (need - satisfied, undecided):
                yield f"{node} counts {blocked.get(node)}; the edges say {(need - satisfied, undecided)}"
            if node in ended and not skipped and (ended[node] is Outcome.FAILED) != (node in self.fails):
                yield f"{node} has another outcome than its handler's"


@dataclass
class Ledger:
    """What was handed out and what was taken back, kept outside the database."""

    given: Counter[UUID] = field(default_factory=Counter)
    returned: Counter[UUID] = field(default_factory=Counter)
    accepted: Counter[UUID] = field(default_factory=Counter)
    refused: int = 0
    met: int = 0
    """Settles that were under way together with another settle of the same child."""
    stop_at: float = float("inf")
    errors: list[BaseException] = field(default_factory=list)
    under_way: Counter[UUID] = field(default_factory=Counter)

    def violations(self) -> Iterator[str]:
        for id, count in self.given.items():
            if count != 1 + self.returned[id]:
                yield f"{id} was given to workers {count} times and taken back {self.returned[id]} times"
        for id, count in self.accepted.items():
            if count != 1:
                yield f"{id} was accepted {count} times"


class Crew:
    """Workers, each with its own connection, working on one graph."""

    def __init__(self, graph: Graph, sql: Statements, seed: int, *, sizes: Sequence[int], noise: float) -> None:
        self.graph, self.sql, self.sizes, self.noise = graph, sql, sizes, noise
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self._busy = 0
        self._turn = asyncio.Event()

    async def run(self, dsn: str, count: int = 16) -> Ledger:
        """Until nothing is left to do, or until ``ledger.stop_at`` jobs are accepted, or the first error."""
        async with connections(dsn, 2 * count) as opened:
            pairs = zip(opened[:count], opened[count:], strict=True)
            await asyncio.gather(*(self._work(connection, other) for connection, other in pairs))
        return self.ledger

    async def _work(self, connection: Any, other: Any) -> None:
        worker = await Worker(connection, self.sql).register()
        ledger = self.ledger
        try:
            while not ledger.errors and len(ledger.accepted) < ledger.stop_at:
                turn = self._turn
                jobs = self._given(await worker.claim(self.random.choice(self.sizes)))
                if jobs:
                    self._busy += 1
                    while jobs:
                        worker, jobs = await self._batch(worker, jobs, other)
                    self._busy -= 1
                    self._next_turn()
                elif self._busy or turn is not self._turn:
                    await turn.wait()
                else:
                    return
        except BaseException as error:
            ledger.errors.append(error)
            self._next_turn()

    def _next_turn(self) -> None:
        """Something was settled: those who found nothing look again."""
        self._turn.set()
        self._turn = asyncio.Event()

    def _given(self, jobs: list[Claimed]) -> list[Claimed]:
        self.ledger.given.update(job.id for job in jobs)
        return jobs

    async def _batch(self, worker: Worker, jobs: list[Claimed], other: Any) -> tuple[Worker, list[Claimed]]:
        """Settle ``jobs`` somehow; the worker that goes on, and what was handed over to it."""
        chance = self.random.random()
        if chance < self.noise:
            how = self.random.choice((self._twice, self._mistaken, self._given_up, self._handed_back))
            return await how(worker, jobs, other)
        return worker, await self._settle(worker, jobs, handoff=self.random.choice((0, 0, 10)))

    async def _settle(self, worker: Worker, jobs: list[Claimed], handoff: int = 0) -> list[Claimed]:
        """As the worker's settler does it: successes fast, the rest slow."""
        good = [job for job in jobs if job.id not in self.graph.fails]
        endings: list[Ending] = []
        for job in jobs:
            if job.id in self.graph.fails:
                comes_back = job.attempt == 1 and self.random.random() < 0.2
                endings.append(again(job) if comes_back else failed(job))
        taken: list[Claimed] = []
        slow: list[Claimed] = []
        if good:
            settled = await self._observed(good, worker.settle(good, handoff=handoff))
            left = set(settled.slow)
            slow = [job for job in good if job.id in left]
            taken = self._given(settled.handoff)
        concerned, spent = worker.leaving(endings)
        kept = {job.lease for job in slow}
        endings += [succeeded(job) for job in slow]
        if endings:
            leases = Leases(
                sorted({*concerned, *kept}), [*spent, *(lease for lease in kept if lease not in worker.held)]
            )
            await self._observed(endings, worker.end(endings, leases))
            self.ledger.returned.update(ending.id for ending in endings if ending.outcome is None)
        return taken

    async def _observed(self, jobs: Sequence[Any], settling: Any) -> Settled:
        ledger, children = self.ledger, self.graph.children
        touched = {child for job in jobs for child in children[job.id]}
        ledger.met += sum(1 for child in touched if ledger.under_way[child])
        ledger.under_way.update(touched)
        try:
            settled = await settling
        finally:
            ledger.under_way.subtract(touched)
        mine = {job.id for job in jobs}
        ledger.accepted.update(settled.ids)
        ledger.refused += len(mine.difference(settled.ids, settled.slow))
        return settled

    async def _twice(self, worker: Worker, jobs: list[Claimed], _other: Any) -> tuple[Worker, list[Claimed]]:
        """An ambiguous commit: the same call again, while a part of the lease is still held."""
        half = [job for job in jobs[::2] if job.id not in self.graph.fails]
        rest = [job for job in jobs if job not in half]
        if half:
            leases = worker.leaving(half)
            first = await self._observed(half, worker.settle(half, leases=leases))
            second = await self._observed(half, worker.settle(half, leases=leases))
            assert not set(second.ids) & set(first.ids)
            assert not second.queues
            for job in half:
                if job.id in first.slow:
                    worker.held[job.lease] += 1
                    rest.append(job)
        return worker, await self._settle(worker, rest)

    async def _mistaken(self, worker: Worker, jobs: list[Claimed], _other: Any) -> tuple[Worker, list[Claimed]]:
        """The wrong lease, the wrong attempt, the wrong worker: none may change anything."""
        good = [job for job in jobs if job.id not in self.graph.fails] or jobs
        leases = sorted({job.lease for job in good})
        stranger = await Worker(worker.connection, self.sql).register()
        for attempt, lease, by in ((0, 1_000_000, worker), (1, 0, worker), (0, 0, stranger)):
            wrong = [_copy(job, job.attempt + attempt, job.lease + lease) for job in good]
            answer = await by.settle(wrong, leases=Leases([*leases, *(job.lease for job in wrong)], []), handoff=5)
            assert (answer.ids, answer.slow, answer.handoff) == ([], [], [])
            answer = await by.end([failed(job) for job in wrong], Leases([*leases, *(job.lease for job in wrong)], []))
            assert not answer.ids
        return worker, await self._settle(worker, jobs)

    async def _given_up(self, worker: Worker, jobs: list[Claimed], other: Any) -> tuple[Worker, list[Claimed]]:
        """The worker's time runs out while it settles; it does not notice, and settles the rest late."""
        await other.execute("update flowrun.workers set expires_at = '-infinity' where id = $1", worker.id)
        half = [job for job in jobs[::2] if job.id not in self.graph.fails]
        done: set[UUID] = set()
        if half:
            settled, _ = await asyncio.gather(
                self._observed(half, worker.settle(half, leases=Leases(_leases(half), []), handoff=5)),
                self._rescued(worker, other),
            )
            done.update(settled.ids)
            jobs = [*jobs, *self._given(settled.handoff)]
        await self._rescued(worker, other)  # also what the settle above has taken over meanwhile
        late = [job for job in jobs if job.id not in done]
        self.ledger.returned.update(job.id for job in late)
        if late:
            leases = Leases(_leases(late), _leases(late))
            answer = await worker.settle(late, leases=leases, handoff=5)
            assert (answer.ids, answer.slow, answer.handoff) == ([], [], [])
            answer = await worker.end([failed(job) for job in late], leases)
            assert answer.ids == []
            self.ledger.refused += 2 * len(late)
        assert await worker.claim(5) == []
        return await Worker(worker.connection, self.sql).register(), []

    async def _rescued(self, worker: Worker, other: Any) -> None:
        """Rescue until nothing of ``worker`` is left, whoever else rescues at the same time."""
        left = True
        while left:
            await upkeep.rescue_one(other, self.sql)
            left = await other.fetchval(
                "select exists (select from flowrun.workers where id = $1) "
                "or exists (select from flowrun.leases where worker_id = $1)",
                worker.id,
            )

    async def _handed_back(self, worker: Worker, jobs: list[Claimed], other: Any) -> tuple[Worker, list[Claimed]]:
        """A lease is handed back from another connection while half of it settles."""
        half = [job for job in jobs[::2] if job.id not in self.graph.fails]
        leases = _leases(jobs)
        done: set[UUID] = set()
        back = upkeep.hand_back(other, self.sql, worker_id=worker.id, leases=leases)
        if half:
            settled, _ = await asyncio.gather(
                self._observed(half, worker.settle(half, leases=Leases(leases, []))), back
            )
            done.update(settled.ids)
        else:
            await back
        self.ledger.returned.update(job.id for job in jobs if job.id not in done)
        for lease in leases:
            del worker.held[lease]
        return worker, []


def _leases(jobs: Sequence[Claimed]) -> list[int]:
    return sorted({job.lease for job in jobs})


def _copy(job: Claimed, attempt: int, lease: int) -> Any:
    copy = object.__new__(Claimed)
    copy.id, copy.attempt, copy.lease = job.id, attempt, lease
    return copy


def two_parents(joins: int, *, parents: int = 2, block: int = 50) -> Graph:
    """Joins of ``parents`` each, laid out so that neighbouring claims hold different parents of the same children."""
    ids = list(mint.flow_ids(joins * (parents + 1))[1])
    sources, children = ids[: joins * parents], ids[joins * parents :]
    edges = []
    for place, parent in enumerate(sources):
        row, at = divmod(place, block)
        child = (row // parents) * block + at
        if child >= joins:
            child = place % joins
        edges.append((parent, children[child], SUCCEEDED))
    return Graph(ids, edges)


def bipartite(parents: int, shared: int) -> Graph:
    """Every parent has the same children."""
    ids = list(mint.flow_ids(parents + shared)[1])
    return Graph(ids, [(parent, child, SUCCEEDED) for parent in ids[:parents] for child in ids[parents:]])


def layered(width: int, depth: int) -> Graph:
    """Each node of a layer waits for all of the layer before."""
    ids = list(mint.flow_ids(width * depth)[1])
    rows = [ids[row * width : (row + 1) * width] for row in range(depth)]
    return Graph(
        ids, [(p, c, SUCCEEDED) for above, below in zip(rows, rows[1:], strict=False) for p in above for c in below]
    )


def mixed(roots: int, layers: int, width: int, seed: int) -> Graph:
    """Half of the nodes fail; conditions, ``any_of`` and ``at_least`` at random."""
    draw = random.Random(seed)
    ids = list(mint.flow_ids(roots + layers * width)[1])
    edges: list[tuple[UUID, UUID, int]] = []
    needs: dict[UUID, int] = {}
    for place in range(roots, len(ids)):
        layer = (place - roots) // width
        top = roots + layer * width
        low = max(0, top - 2 * width)
        count = draw.randint(1, 4)
        chosen = {(ids[draw.randrange(low, top)], draw.choice((0, 0, 0, 1, 2))) for _ in range(count)}
        edges += [(parent, ids[place], condition) for parent, condition in sorted(chosen, key=str)]
        if draw.random() < 0.5:
            needs[ids[place]] = draw.randint(1, len(chosen))
    return Graph(
        ids,
        edges,
        needs,
        fails={id for place, id in enumerate(ids) if draw.random() < (0.5 if place < roots else 0.25)},
        optional={id for id in ids if draw.random() < 0.15},
    )
