"""What must happen by itself: due jobs become ready, workers live or are given up, their jobs are rescued."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from flowrun import codec
from flowrun.core.callback import Calls, nothing
from flowrun.core.states import Outcome
from flowrun.store.blame import Fault, fault_of
from flowrun.store.callbacks import call_back
from flowrun.store.finish import Final, Settled, come_back, finish, hold_first, stop_requests, whole
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

DUE_BATCH = 1000


class Due(NamedTuple):
    """What became ready, and the seconds until the next is due (None: nothing is scheduled)."""

    queues: set[str]
    next_due: float | None


async def make_due(connection: Connection, sql: Statements) -> Due:
    """Make ready what is due, one batch of it."""
    queues: set[str] = set()
    next_due: float | None = None
    for note, queue, seconds in await connection.fetch(sql["due"], DUE_BATCH):
        if note == 3:
            queues.add(queue)
        else:
            next_due = seconds
    return Due(queues, next_due)


async def register(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    name: str,
    queues: Sequence[str],
    concurrency: int,
    lease: float,
    types: Sequence[str] = (),
) -> None:
    """Enter a worker; its leases hold for ``lease`` seconds from now."""
    await connection.execute(sql["register_worker"], worker_id, name, queues, concurrency, lease, types)


class Beat(NamedTuple):
    """What a heartbeat learns."""

    others_expired: bool
    next_due: float | None
    cancelled: list[UUID] | None = None
    """Jobs of this worker that were asked to stop: it may not have heard."""
    changes: int = 0
    """How often queues were changed."""
    next_tick: float | None = None
    """Seconds until the next tick of a schedule; 0 where one waited for a run that has ended."""
    unknown: Exception | None = None
    """Why nothing but ``changes`` is known."""


async def beat(connection: Connection, sql: Statements, *, worker_id: UUID, lease: float) -> Beat | None:
    """Push on a worker's leases by ``lease`` seconds; None when it was given up already.

    That comes first, and by itself: where somebody has locked what else there is to know, nothing of it is known.
    """
    changes = await connection.fetchval(sql["beat"], worker_id, lease, timeout=lease / 3)
    if changes is None:
        return None
    try:
        others_expired, next_due, cancelled, next_tick = await connection.fetchrow(
            sql["news"], worker_id, timeout=lease / 3
        )
    except Exception as error:
        if fault_of(error) is Fault.LINK:
            raise
        return Beat(False, None, None, changes, unknown=error)
    return Beat(others_expired, next_due, cancelled, changes, next_tick)


async def asked_to_stop(connection: Connection, sql: Statements, worker_id: UUID) -> list[UUID]:
    """Which jobs of a worker were asked to stop."""
    return [row[0] for row in await connection.fetch(sql["asked_to_stop"], worker_id)]


async def complain(connection: Connection, sql: Statements, worker_id: UUID, trouble: str | None) -> None:
    """Let people see what troubles a worker (JSON)."""
    await connection.execute(sql["tell_trouble"], worker_id, trouble)


class Rescued(NamedTuple):
    """A worker given up, and what became of its jobs."""

    worker: str
    jobs: int
    """Those it had that were not done."""
    settled: Settled


async def rescue_one(
    connection: Connection, sql: Statements, *, crash_limit: int = 5, calls: Calls = nothing
) -> Rescued | None:
    """Give up one worker whose time is over. Its unfinished jobs are ready again, and no failure of theirs is counted.

    A job that was lost so ``crash_limit`` times in a row has failed: it may be what kills them. So has one that must
    not run twice and had begun.
    """
    settled = Settled()

    async def work() -> Rescued | None:
        expired = await connection.fetchrow(sql["expired_worker"])
        if expired is None:
            return None
        id, name = expired
        taken = await _take(connection, sql, id, None, settled)
        why = f"worker {name!r} stopped sending heartbeats while it ran the job"
        lost, finals = await _not_again(connection, sql, id, name, taken, why)
        if lost:
            await _record(connection, sql, name, lost, why)
            losses = dict(await connection.fetch(sql["count_loss"], [one.id for one in lost]))
            killers = [one for one in lost if losses.get(one.id, 0) >= crash_limit]
            again = [(one.id, one.attempt, 0.0) for one in lost if losses.get(one.id, 0) < crash_limit]
            finals += await come_back(connection, sql, again, settled)
            finals += [_lost(one, _killer(losses[one.id])) for one in killers]
        await finish(connection, sql, finals, settled)
        await call_back(connection, sql, settled, calls)
        await connection.execute(sql["delete_worker"], id)
        return Rescued(name, len(taken), settled)

    return await whole(connection, settled, work)


async def hand_back(
    connection: Connection, sql: Statements, *, worker_id: UUID, leases: Sequence[int] | None
) -> set[str]:
    """Give back whatever is unfinished in some (or all) of a worker's own leases; no attempt is used.

    Numbers that are named are of no use afterwards: a statement on its way that would write such a lease fails. Nothing
    of these leases has begun, or nothing that must not run twice: what has is for :func:`leave`.
    """
    settled = Settled()
    if leases is not None:
        # In a commit of its own: a statement on its way that waits for one of these numbers may hold what comes next.
        await connection.execute(sql["void_leases"], worker_id, leases)

    async def work() -> set[str]:
        mine = await _take(connection, sql, worker_id, leases, settled)
        stopped = await come_back(connection, sql, [(one.id, one.attempt - 1, 0.0) for one in mine], settled)
        await finish(connection, sql, stopped, settled)
        return settled.queues

    return await whole(connection, settled, work)


async def leave(
    connection: Connection, sql: Statements, *, worker_id: UUID, name: str = "", calls: Calls = nothing
) -> Settled:
    """A worker goes: what it still holds is ready again, its row is deleted. What must not run twice and has begun has
    failed."""
    settled = Settled()

    async def work() -> None:
        taken = await _take(connection, sql, worker_id, None, settled)
        why = f"worker {name!r} was stopped while it ran the job, and did not wait any longer"
        mine, finals = await _not_again(connection, sql, worker_id, name, taken, why)
        finals += await come_back(connection, sql, [(one.id, one.attempt - 1, 0.0) for one in mine], settled)
        await finish(connection, sql, finals, settled)
        await call_back(connection, sql, settled, calls)

    await whole(connection, settled, work)
    # Not in the same transaction: a rescue has the worker's row first, and its leases then.
    await connection.execute(sql["delete_worker"], worker_id)
    return settled


class Taken(NamedTuple):
    """A job taken out of a lease."""

    id: UUID
    attempt: int
    started_at: datetime
    lease: int


async def _not_again(
    connection: Connection, sql: Statements, worker_id: UUID, worker: str, taken: Sequence[Taken], why: str
) -> tuple[list[Taken], list[Final]]:
    """Of ``taken`` jobs, those that may run again, and how the others end: these have begun and must not run twice."""
    rows = await connection.fetch(sql["begun"], worker_id, [one.id for one in taken], [one.lease for one in taken])
    begun = {id for (id,) in rows}
    if not begun:
        return list(taken), []
    once = [one for one in taken if one.id in begun]
    await _record(connection, sql, worker, once, why)
    asked = {request.id: request for request in await stop_requests(connection, sql, [one.id for one in once])}
    error = _worker_lost(f'{why}; it is not run again (on_lost="fail")')
    finals = [asked[one.id].final(one.attempt) if one.id in asked else _lost(one, error) for one in once]
    return [one for one in taken if one.id not in begun], finals


async def _record(connection: Connection, sql: Statements, worker: str, lost: Sequence[Taken], message: str) -> None:
    """Keep attempts that were lost."""
    ids, attempts, times, _ = map(list, zip(*lost, strict=True))
    nothing_else: list[None] = [None] * len(ids)
    kinds, messages = ["flowrun.WorkerLost"] * len(ids), [message] * len(ids)
    rows = (ids, attempts, worker, times, kinds, messages, nothing_else, nothing_else)
    await connection.execute(sql["record_attempts"], *rows)


def _lost(one: Taken, error: str) -> Final:
    return Final(one.id, Outcome.FAILED, one.attempt, started_at=one.started_at, error=error)


async def expire(connection: Connection, sql: Statements, *, worker_id: UUID) -> None:
    """A worker was ended, perhaps by what it ran: its time is over at once, and others rescue what it holds."""
    await connection.execute(sql["expire_worker"], worker_id)


def _killer(losses: int) -> str:
    return _worker_lost(f"its worker died {losses} times while it ran; it is not run again (setting crash_limit)")


def _worker_lost(message: str) -> str:
    return codec.dump({"type": "flowrun.WorkerLost", "message": message})


async def _take(
    connection: Connection, sql: Statements, worker_id: UUID, leases: Sequence[int] | None, settled: Settled
) -> list[Taken]:
    hold = settled.hold
    if hold.first_jobs or hold.first_counters:
        # An earlier turn found that it needs them: where jobs that are lost decide a race, those who lose it.
        await hold_first(connection, sql, settled, (worker_id, leases))
    held = await connection.fetch(sql["take_leases"], worker_id, leases)
    hold.own_leases()
    open_ids = {row[0] for row in await connection.fetch(sql["unfinished"], [row[0] for row in held])}
    return [Taken(*row) for row in held if row[0] in open_ids]


async def begin(
    connection: Connection, sql: Statements, *, worker_id: UUID, lease: int, job: UUID, attempt: int
) -> bool:
    """Note that the attempt of a job that must not run twice begins. False if it must not: the job is not this
    worker's any more."""
    row = await connection.fetchval(sql["begin"], worker_id, lease, job, attempt)
    return row is not None
