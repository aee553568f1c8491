"""Outcomes, and all that follows from them: children released, skipped, cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Claimed
from flowrun.core.callback import Failed
from flowrun.core.cascade import Counters, Edge, Ended, Skip, decide, through
from flowrun.core.states import Condition, Outcome
from flowrun.errors import DatabaseError
from flowrun.store import stop
from flowrun.store.hold import TURNS, Hold, HoldFirst
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

T = TypeVar("T")


@dataclass(slots=True)
class Settled:
    """What a settle, or whatever else ends jobs, did."""

    handoff: list[Claimed] = field(default_factory=list)
    slow: list[UUID] = field(default_factory=list)
    """Jobs that success leaves with an unsatisfied edge: nothing is done yet, they go the slow way."""
    ids: list[UUID] = field(default_factory=list)
    """Jobs that have their outcome now, skipped ones included."""
    queues: set[str] = field(default_factory=set)
    """Queues in which something became ready."""
    scheduled: bool = False
    """Whether something was put off to a later moment."""
    interrupt: list[UUID] = field(default_factory=list)
    """Running jobs that were asked to stop."""
    failed: list[Failed] = field(default_factory=list)
    """Handlers' jobs that have failed for good."""
    hold: Hold = field(default_factory=Hold)
    """What the transaction under way holds."""

    def add(self, other: Settled) -> None:
        """Take in what another transaction did."""
        self.handoff += other.handoff
        self.slow += other.slow
        self.ids += other.ids
        self.queues |= other.queues
        self.scheduled |= other.scheduled
        self.interrupt += other.interrupt
        self.failed += other.failed

    def become(self, other: Settled) -> None:
        """Be as ``other`` was: what was done since is rolled back."""
        self.handoff, self.slow, self.ids = [*other.handoff], [*other.slow], [*other.ids]
        self.interrupt, self.failed = [*other.interrupt], [*other.failed]
        self.queues, self.scheduled = {*other.queues}, other.scheduled

    def read(self, rows: Iterable[Any]) -> None:
        """Take in the notes that again.sql and cascade.sql answer with."""
        for note, queue in rows:
            if note == 3:
                self.queues.add(queue)
            else:
                self.scheduled = True


class Final(NamedTuple):
    """A row of ``finished`` to be."""

    id: UUID
    outcome: Outcome
    attempt: int
    result: str | None = None
    started_at: datetime | None = None
    cause: UUID | None = None
    error: str | None = None
    harmless: bool = False
    """Does not keep its flow from succeeding."""


async def whole(connection: Connection, settled: Settled, work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work`` in a transaction; from the beginning where it finds too late what it has to hold: see :class:`Hold`.

    Raises DatabaseError where that goes on: what it needs keeps moving.
    """
    before = Settled()
    before.become(settled)
    settled.hold = Hold()
    for _ in range(TURNS):
        try:
            async with connection.transaction(isolation="read_committed"):
                return await work()
        except HoldFirst as more:
            settled.become(before)
            settled.hold = settled.hold.learn(more)
    raise DatabaseError(f"{len(settled.hold.first_jobs)} job(s) could not be held: they keep moving; try again")


async def finish(connection: Connection, sql: Statements, finals: Sequence[Final], settled: Settled) -> None:
    """Write outcomes and all that follows from them. The caller holds the transaction and owns the jobs."""
    await follow(connection, sql, await write(connection, sql, finals, settled), settled)


async def write(
    connection: Connection, sql: Statements, finals: Sequence[Final], settled: Settled
) -> dict[UUID, Ended]:
    """Write outcomes; those that were written, for :func:`follow`. One that was there before stays."""
    if not finals:
        return {}
    columns = [list(column) for column in zip(*finals, strict=True)]
    rows = await connection.fetch(sql["finish"], *columns)
    settled.ids.extend(row[0] for row in rows)
    settled.failed.extend(Failed(row[0], row[3], row[4]) for row in rows if row[3] is not None)
    return {row[0]: Ended(Outcome(row[1]), row[2]) for row in rows}


async def follow(
    connection: Connection,
    sql: Statements,
    ended: Mapping[UUID, Ended],
    settled: Settled,
    only: frozenset[UUID] | None = None,
) -> None:
    """All that follows from jobs' ends; ``only``: of their own children, none but these.

    Jobs that lose a race are cancelled, and what follows from that follows too, until nothing does any more.
    """
    while ended:
        edges = await _reach(connection, sql, ended, only)
        if not edges:
            return
        losers, edges = await _decide(connection, sql, ended, edges, settled, only)
        only = None
        siblings = await _siblings(connection, sql, ended, edges)
        ended = {}
        for ids, reason in ((losers, "another won the race"), (siblings, "another item of the map failed")):
            if ids:
                ended |= await cancel(connection, sql, ids, settled, reason=reason, harmless=True)


async def cancel(
    connection: Connection,
    sql: Statements,
    ids: Sequence[UUID],
    settled: Settled,
    *,
    reason: str | None,
    actor: str | None = None,
    harmless: bool = False,
) -> dict[UUID, Ended]:
    """Cancel what waits, ask what runs to stop; those that ended by it, for :func:`follow`.

    ``harmless``: what contains ``ids`` can succeed all the same. A flow among them is cancelled by what is in it.
    """
    stopped = await stop.stop(connection, sql, ids, settled.hold, reason=reason, actor=actor, harmless=harmless)
    settled.interrupt.extend(stopped.running)
    return await write(
        connection,
        sql,
        [
            Final(id, Outcome.CANCELLED, attempt, error=stop.words(reason, actor), harmless=id in stopped.harmless)
            for id, attempt in stopped.withdrawn.items()
        ],
        settled,
    )


async def hold_to_cancel(
    connection: Connection, sql: Statements, ids: Sequence[UUID], settled: Settled, also: Iterable[UUID] = ()
) -> None:
    """Hold at once what :func:`cancel` of jobs or flows needs, what follows from it, and ``also`` other jobs.

    For the beginning of a transaction: what is needed later is had only where nobody else has it.
    """
    jobs, ends = await stop.concerned(connection, sql, ids)
    edges = await _reach(connection, sql, {id: Ended(Outcome.CANCELLED) for id in jobs}, None)
    await settled.hold.jobs(connection, sql, jobs.union(also), ends.union(edge.child for edge in edges))


async def hold_first(
    connection: Connection,
    sql: Statements,
    settled: Settled,
    own: tuple[UUID, Sequence[int] | None],
    flows: Iterable[UUID] = (),
    jobs: Iterable[UUID] = (),
) -> None:
    """Lock ``flows``, and hold ``jobs`` and what the transaction needed too late before it began anew, with the flows
    of all of these; and a worker's ``own`` leases (None: all of them)."""
    hold, wanted = settled.hold, list(jobs)
    await connection.fetch(sql["lock_flows_of"], [*wanted, *hold.first_jobs, *hold.first_counters], list(flows))
    if wanted or hold.first_jobs or hold.first_counters:
        concerned, ends = await stop.concerned(connection, sql, wanted) if wanted else (set(), set())
        await hold.jobs(connection, sql, concerned, ends, own)


async def come_back(
    connection: Connection, sql: Statements, jobs: Sequence[tuple[UUID, int, float]], settled: Settled
) -> list[Final]:
    """Put jobs (id, attempts used, seconds from now) back where they wait. The caller holds the transaction.

    Those that were asked to stop do not come back: they are returned, to be finished.
    """
    if not jobs:
        return []
    # Not the end of a flow that is being cancelled: it has to find out what became of the flow.
    asked = {one.id: one for one in await stop_requests(connection, sql, [job[0] for job in jobs]) if not one.is_flow}
    left = [job for job in jobs if job[0] not in asked]
    if left:
        settled.read(await connection.fetch(sql["again"], *map(list, zip(*left, strict=True))))
    return [asked[id].final(used) for id, used, _ in jobs if id in asked]


class StopRequest(NamedTuple):
    """A job, or a flow, that was asked to stop."""

    id: UUID
    words: str | None
    """Why, as it is kept with the outcome."""
    harmless: bool
    is_flow: bool

    def final(self, attempt: int) -> Final:
        """The job as cancelled by it."""
        return Final(self.id, Outcome.CANCELLED, attempt, error=self.words, harmless=self.harmless)


async def stop_requests(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> list[StopRequest]:
    """Which of some jobs, and ends of flows, were asked to stop."""
    return [
        StopRequest(id, stop.words(reason, actor), harmless, is_flow)
        for id, reason, actor, harmless, is_flow in await connection.fetch(sql["cancel_requests"], ids)
    ]


async def _reach(
    connection: Connection, sql: Statements, ended: Mapping[UUID, Ended], only: frozenset[UUID] | None
) -> list[Edge[UUID]]:
    """The edges that the ends of jobs can matter to."""
    found = await connection.fetch(
        sql["reach"],
        list(ended),
        [int(end.outcome) for end in ended.values()],
        [end.optional for end in ended.values()],
    )
    return [
        Edge(parent, child, Condition(condition), passed, tuple(rivals or ()))
        for parent, child, condition, passed, rivals in found
        if only is None or parent not in ended or child in only
    ]


async def _decide(
    connection: Connection,
    sql: Statements,
    ended: Mapping[UUID, Ended],
    edges: list[Edge[UUID]],
    settled: Settled,
    only: frozenset[UUID] | None,
) -> tuple[list[UUID], list[Edge[UUID]]]:
    """Decide and write; the losers of races, and the edges it was decided by."""
    while True:
        locked, before = await settled.hold.counted(connection, sql, {edge.child for edge in edges})
        if before:
            break
        # While these locks were waited for, somebody may have tied more to a job that is to be skipped.
        again = await _reach(connection, sql, ended, only)
        if set(again) == set(edges):
            break
        edges = again
    cascade = decide(ended, edges, {id: Counters(need, open) for id, need, open, _ in locked})
    settled.read(
        await connection.fetch(
            sql["cascade"],
            cascade.released,
            list(cascade.skipped),
            list(cascade.waiting),
            [counters.need for counters in cascade.waiting.values()],
            [counters.open for counters in cascade.waiting.values()],
        )
    )
    joins = {id for id, _, _, joins in locked if joins}
    await skip(connection, sql, through(cascade.skipped, joins), settled, _reason)
    return list(cascade.losers), edges


async def skip(
    connection: Connection,
    sql: Statements,
    skips: Mapping[UUID, Skip[UUID]],
    settled: Settled,
    says: Callable[[Outcome, Condition], str],
) -> None:
    """Write skips: as their cause a node that people know, not a join or an end; ``says`` why, of ``{parent}``."""
    if not skips:
        return
    rows = await connection.fetch(sql["blame"], [one.cause for one in skips.values()])
    own = {id: (name, blamed) for id, name, blamed in rows}
    finals = []
    for id, one in skips.items():
        cause, error = one.cause, says(one.outcome, one.condition)
        if cause in own:
            name, cause = own[cause]
            error = error.replace("{parent}", codec.dump(name)[1:-1])
        finals.append(Final(id, Outcome.SKIPPED, 0, cause=cause, error=error))
    await write(connection, sql, finals, settled)


async def _siblings(
    connection: Connection, sql: Statements, ended: Mapping[UUID, Ended], edges: Sequence[Edge[UUID]]
) -> list[UUID]:
    """The other items of a map of which one has failed, where the map asks for that."""
    failed = {id for id, end in ended.items() if end.outcome is Outcome.FAILED and not end.optional}
    maps = {edge.child for edge in edges if edge.parent in failed and edge.condition is Condition.FINISHED}
    if not maps:
        return []
    return [row[0] for row in await connection.fetch(sql["siblings"], list(maps))]


_PASSIVE = (Outcome.CANCELLED, Outcome.SKIPPED)


def _reason(outcome: Outcome, condition: Condition) -> str:
    if outcome is Outcome.SUCCEEDED and condition is not Condition.FAILED:
        return '{"message":"its parent {parent} succeeded with another result than it was to have"}'
    ended = "was " + outcome.name.lower() if outcome in _PASSIVE else outcome.name.lower()
    wanted = {Condition.FAILED: "fail", Condition.FINISHED: "finish"}.get(condition, "succeed")
    return f'{{"message":"its parent {{parent}} {ended}; it was to {wanted}"}}'
