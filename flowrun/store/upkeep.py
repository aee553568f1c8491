"""What must happen by itself: due jobs become ready, workers live or are given up, their jobs are rescued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from flowrun import codec
from flowrun.core.callback import Calls, nothing
from flowrun.core.states import Outcome
from flowrun.store.blame import Fault, fault_of
from flowrun.store.callbacks import call_back
from flowrun.store.finish import Final, Settled, come_back, finish
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
    """Give up one worker whose time is over; its unfinished jobs are ready again, no attempt of theirs is used.

    A job that was lost so for the ``crash_limit``-th time has failed: it may be what kills them.
    """
    async with connection.transaction(isolation="read_committed"):
        expired = await connection.fetchrow(sql["expired_worker"])
        if expired is None:
            return None
        settled = Settled()
        lost = await _take(connection, sql, expired[0], None)
        if lost:
            ids, attempts, times = map(list, zip(*lost, strict=True))
            message = f"worker {expired[1]!r} stopped sending heartbeats while it ran the job"
            await connection.execute(
                sql["record_attempts"],
                ids,
                attempts,
                expired[1],
                times,
                ["flowrun.WorkerLost"] * len(ids),
                [message] * len(ids),
                [None] * len(ids),
                [None] * len(ids),
            )
            losses = dict(await connection.fetch(sql["count_loss"], ids))
            again = [(id, attempt, 0.0) for id, attempt, _ in lost if losses.get(id, 0) < crash_limit]
            finals = await come_back(connection, sql, again, settled)
            finals += [
                Final(id, Outcome.FAILED, attempt, started_at=started, error=_killer(losses[id]))
                for id, attempt, started in lost
                if losses.get(id, 0) >= crash_limit
            ]
            await finish(connection, sql, finals, settled)
            await call_back(connection, sql, settled, calls)
        await connection.execute(sql["delete_worker"], expired[0])
        return Rescued(expired[1], len(lost), settled)


async def hand_back(
    connection: Connection, sql: Statements, *, worker_id: UUID, leases: Sequence[int] | None
) -> set[str]:
    """Give back whatever is unfinished in some (or all) of a worker's own leases; no attempt is used.

    Numbers that are named are of no use afterwards: a statement on its way that would write such a lease fails.
    """
    async with connection.transaction(isolation="read_committed"):
        settled = Settled()
        if leases is not None:
            await connection.execute(sql["void_leases"], worker_id, leases)
        mine = await _take(connection, sql, worker_id, leases)
        stopped = await come_back(connection, sql, [(id, attempt - 1, 0.0) for id, attempt, _ in mine], settled)
        await finish(connection, sql, stopped, settled)
        return settled.queues


async def leave(connection: Connection, sql: Statements, *, worker_id: UUID) -> set[str]:
    """A worker goes: what it still holds is ready again, its row is deleted."""
    queues = await hand_back(connection, sql, worker_id=worker_id, leases=None)
    await connection.execute(sql["delete_worker"], worker_id)
    return queues


async def expire(connection: Connection, sql: Statements, *, worker_id: UUID) -> None:
    """A worker was ended, perhaps by what it ran: its time is over at once, and others rescue what it holds."""
    await connection.execute(sql["expire_worker"], worker_id)


def _killer(losses: int) -> str:
    message = f"its worker died {losses} times while it ran; it is not run again (setting crash_limit)"
    return codec.dump({"type": "flowrun.WorkerLost", "message": message})


async def _take(connection: Connection, sql: Statements, worker_id: UUID, leases: Sequence[int] | None) -> list[Any]:
    held = await connection.fetch(sql["take_leases"], worker_id, leases)
    open_ids = {row[0] for row in await connection.fetch(sql["unfinished"], [row[0] for row in held])}
    return [row for row in held if row[0] in open_ids]
