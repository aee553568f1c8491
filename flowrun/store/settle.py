"""Writing outcomes, and releasing what waited for them. State, edges and handing over: nothing else belongs here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from flowrun.core.attempt import Claimed, Ending, Success
from flowrun.core.cascade import Counters, Edge, Ended, decide
from flowrun.core.states import Condition, Outcome
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


class Leases(NamedTuple):
    """The leases that a settle concerns, and those of them it empties."""

    concerned: Sequence[int]
    spent: Sequence[int]


@dataclass(slots=True)
class Settled:
    """What a settle did."""

    handoff: list[Claimed] = field(default_factory=list)
    slow: list[UUID] = field(default_factory=list)
    """Jobs that success leaves with an unsatisfied edge: nothing is done yet, they go the slow way."""
    ids: list[UUID] = field(default_factory=list)
    """Jobs that have their outcome now, skipped ones included."""
    queues: set[str] = field(default_factory=set)
    """Queues in which something became ready."""
    scheduled: bool = False
    """Whether something was put off to a later moment."""

    def read(self, rows: Iterable[Any]) -> None:
        """Take in the notes that again.sql and cascade.sql answer with."""
        for note, queue in rows:
            if note == 3:
                self.queues.add(queue)
            else:
                self.scheduled = True


async def settle(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    successes: Sequence[Success],
    leases: Leases,
    handoff: int,
    handoff_lease: int,
    queues: Sequence[str],
    types: Sequence[str],
) -> Settled:
    """Settle a batch of successes and take up to ``handoff`` released jobs, in one statement and one commit."""
    ids, numbers, attempts, results = zip(*successes, strict=True)
    rows = await connection.fetch(
        sql["settle"],
        worker_id,
        leases.concerned,
        leases.spent,
        ids,
        numbers,
        attempts,
        results,
        handoff,
        handoff_lease,
        queues,
        types,
    )
    settled = Settled()
    for row in rows:
        note = row[0]
        if note == 2:
            settled.ids.append(row[1])
        elif note == 0:
            settled.handoff.append(Claimed(row[1:], handoff_lease))
        elif note == 1:
            settled.slow.append(row[1])
        elif note == 3:
            settled.queues.add(row[6])
        else:
            settled.scheduled = True
    return settled


async def settle_endings(
    connection: Connection, sql: Statements, *, worker_id: UUID, worker: str, endings: Sequence[Ending], leases: Leases
) -> Settled:
    """Settle jobs in any way, in one transaction: the clear path beside the fast one."""
    async with connection.transaction(isolation="read_committed"):
        left = await connection.fetch(
            sql["leave"],
            worker_id,
            leases.concerned,
            leases.spent,
            [ending.id for ending in endings],
            [ending.lease for ending in endings],
            [ending.attempt for ending in endings],
        )
        started = {row[0]: row[2] for row in left}
        mine = [ending for ending in endings if ending.id in started]
        settled = Settled()
        await _keep_attempts(connection, sql, mine, worker, started)
        await come_back(
            connection,
            sql,
            [(ending.id, ending.attempts_used, ending.delay) for ending in mine if ending.outcome is None],
            settled,
        )
        await finish(
            connection,
            sql,
            [
                Final(e.id, e.outcome, e.attempt, e.result, started[e.id], None, e.error)
                for e in mine
                if e.outcome is not None
            ],
            settled,
        )
    return settled


class Final(NamedTuple):
    """A row of ``finished`` to be."""

    id: UUID
    outcome: Outcome
    attempt: int
    result: str | None = None
    started_at: datetime | None = None
    cause: UUID | None = None
    error: str | None = None


async def finish(connection: Connection, sql: Statements, finals: Sequence[Final], settled: Settled) -> None:
    """Write outcomes and all that follows from them. The caller holds the transaction and owns the jobs."""
    if not finals:
        return
    rows = await _write(connection, sql, finals)
    settled.ids.extend(row[0] for row in rows)
    ended = {row[0]: Ended(Outcome(row[1]), row[2]) for row in rows}
    found = await connection.fetch(
        sql["reach"],
        list(ended),
        [int(end.outcome) for end in ended.values()],
        [end.optional for end in ended.values()],
    )
    if not found:
        return
    edges = [Edge(parent, child, Condition(condition)) for parent, child, condition in found]
    locked = await connection.fetch(sql["lock_blocked"], list({edge.child for edge in edges}))
    cascade = decide(ended, edges, {id: Counters(need, open) for id, need, open in locked})
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
    if cascade.skipped:
        skips = [
            Final(id, Outcome.SKIPPED, 0, cause=skip.cause, error=_reason(skip.outcome, skip.condition))
            for id, skip in cascade.skipped.items()
        ]
        settled.ids.extend(row[0] for row in await _write(connection, sql, skips))


async def come_back(
    connection: Connection, sql: Statements, jobs: Sequence[tuple[UUID, int, float]], settled: Settled
) -> None:
    """Put jobs (id, attempts used, seconds from now) back where they wait. The caller holds the transaction."""
    if jobs:
        settled.read(await connection.fetch(sql["again"], *map(list, zip(*jobs, strict=True))))


async def _write(connection: Connection, sql: Statements, finals: Sequence[Final]) -> list[Any]:
    columns = [list(column) for column in zip(*finals, strict=True)]
    rows: list[Any] = await connection.fetch(sql["finish"], *columns)
    return rows


async def _keep_attempts(
    connection: Connection, sql: Statements, endings: Sequence[Ending], worker: str, started: dict[UUID, datetime]
) -> None:
    kept = [(e.id, e.attempt, started[e.id], *e.failure) for e in endings if e.failure is not None]
    if kept:
        ids, attempts, times, types, messages, traces = map(list, zip(*kept, strict=True))
        await connection.execute(sql["record_attempts"], ids, attempts, worker, times, types, messages, traces)


_PASSIVE = (Outcome.CANCELLED, Outcome.SKIPPED)


def _reason(outcome: Outcome, condition: Condition) -> str:
    ended = "was " + outcome.name.lower() if outcome in _PASSIVE else outcome.name.lower()
    wanted = {Condition.FAILED: "fail", Condition.FINISHED: "finish"}.get(condition, "succeed")
    return f'{{"message":"its parent {{parent}} {ended}; it was to {wanted}"}}'
