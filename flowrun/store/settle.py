"""Writing outcomes, and releasing what waited for them. State, edges and handing over: nothing else belongs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from flowrun import codec, crash
from flowrun.core.attempt import Claimed, Ending, Success
from flowrun.core.callback import Calls, nothing
from flowrun.core.cascade import Ended
from flowrun.core.growth import Expansion, Outbox, Parked
from flowrun.core.plan import KeyRow
from flowrun.core.states import Outcome
from flowrun.store import claim, gates, grow, insert, keys
from flowrun.store.callbacks import call_back
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.finish import (
    Final,
    Settled,
    come_back,
    follow,
    hold_first,
    stop_requests,
    whole,
    write,
)
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


class Leases(NamedTuple):
    """The leases that a settle concerns, and those of them it empties."""

    concerned: Sequence[int]
    spent: Sequence[int]


class Slots(NamedTuple):
    """Slots of limits that are free with a settle, and what is let in instead: the parameters of settle_limited.sql."""

    by_job: Sequence[int]
    """By success: the number of the place whose next job gets its slot, from 1 on; 0: none does."""
    going_on: Sequence[int]
    """Leases that take up limits and have other jobs."""
    places: Sequence[str]
    leases: Sequence[int]
    """By place: the lease of those let in."""
    slots: Sequence[str | None]
    """By place: what its jobs take up."""
    share: int
    """1: all are passed on; 2: every other one."""
    names: Sequence[str | None]
    given: Sequence[int]
    """Slots of leases that are empty now: name and lease."""


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
    changes: int = 0,
    slots: Slots | None = None,
) -> Settled:
    """Settle a batch of successes and take up to ``handoff`` released jobs, in one statement and one commit; with
    ``slots`` also those that their limits let in instead."""
    ids, numbers, attempts, results = zip(*successes, strict=True)
    worker = (worker_id, handoff, handoff_lease, queues, types, changes)
    try:
        if len(ids) == len(leases.spent) == 1 and slots is None:
            rows = await connection.fetch(sql["settle_one"], *worker, *numbers, *ids, *attempts, *results)
            settled = _read(rows, Settled(), handoff_lease)
            if settled.ids:
                return settled
        batch = (leases.concerned, leases.spent, ids, numbers, attempts, results)
        name = "settle" if slots is None else "settle_limited"
        rows = await connection.fetch(sql[name], *worker, *batch, *(slots or ()))
    except asyncpg.UniqueViolationError as error:
        if getattr(error, "table_name", None) != "finished":
            raise
        return Settled(slow=list(ids))
    return _read(rows, Settled(ids=list(ids)), handoff_lease if slots is None else None)


async def plan(connection: Connection, sql: Statements) -> None:
    """Have the server plan what settles on this connection, and what reads inputs, without settling anything."""
    nobody: tuple[Any, ...] = (UUID(int=0), 0, 0, [], [], 0)
    await connection.fetch(sql["settle_one"], *nobody, 0, UUID(int=0), 1, None)
    await connection.fetch(sql["settle"], *nobody, [], [], [], [], [], [])
    await claim.inputs(connection, sql, wanted=[], flows=[])


def _read(rows: Sequence[Any], settled: Settled, lease: int | None) -> Settled:
    """Take in the rows of a settle. What it hands off is in ``lease``, or, under limits, in the lease that each row
    names."""
    for row in rows:
        note = row[0]
        if note == 0:
            settled.handoff.append(Claimed(row[1:13], row[13] if lease is None else lease))
        elif note == 1:
            settled.slow.append(row[1])
        elif note == 2:
            settled.ids = row[9] or []
        elif note == 3:
            settled.queues.add(row[6])
        else:
            settled.scheduled = True
    return settled


async def settle_endings(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    worker: str,
    endings: Sequence[Ending],
    leases: Leases,
    calls: Calls = nothing,
) -> Settled:
    """Settle jobs in any way, in one transaction: the clear path beside the fast one."""
    settled = Settled()

    async def work() -> None:
        crash.point("settle.begun")
        await _settle(connection, sql, settled, worker_id=worker_id, worker=worker, endings=endings, leases=leases)
        await call_back(connection, sql, settled, calls)
        crash.point("settle.before commit")

    await whole(connection, settled, work)
    crash.point("settle.committed")
    return settled


async def move_to_own_lease(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    ending: Ending,
    own: int,
    under_limit: bool,
) -> bool:
    """Move a job that has ended out of its shared lease into ``own``, in a commit of its own; False if it is not this
    worker's. Safe to repeat with the same numbers."""
    verb = (worker_id, ending.lease, ending.id, ending.attempt, own, under_limit)
    # A call that waited for the one before it cannot see yet what that one did.
    return bool(
        await connection.fetchval(sql["move_to_own_lease"], *verb)
        or await connection.fetchval(sql["move_to_own_lease"], *verb)
    )


async def settle_alone(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    worker: str,
    endings: Sequence[Ending],
    leases: Leases,
    calls: Calls = nothing,
) -> Settled:
    """Write the outcomes of jobs that have one and nothing else: something that hangs on them cannot be dealt with."""
    settled = Settled()
    async with connection.transaction(isolation="read_committed"):
        mine, started = await _leave(connection, sql, worker_id, endings, leases)
        finals = [
            Final(e.id, e.outcome, e.attempt, e.result, started[e.id], None, e.error)
            for e in mine
            if e.outcome is not None
        ]
        await write(connection, sql, finals, settled)
    return settled


async def settle_in(
    connection: Connection, sql: Statements, *, worker_id: UUID, worker: str, endings: Sequence[Ending], leases: Leases
) -> Settled:
    """The same in a transaction of the caller's. A job that is not in ``ids`` afterwards was not this worker's."""
    settled = Settled()

    async def work() -> None:
        await _settle(connection, sql, settled, worker_id=worker_id, worker=worker, endings=endings, leases=leases)

    await whole(connection, settled, work)
    return settled


async def _settle(
    connection: Connection,
    sql: Statements,
    settled: Settled,
    *,
    worker_id: UUID,
    worker: str,
    endings: Sequence[Ending],
    leases: Leases,
) -> None:
    caller = AsyncpgCaller(connection, nullcontext, own=True)
    given = await keys.hold(caller, sql, [key for ending in endings for key in _keys(ending)])
    await _lock(connection, sql, settled, endings, (worker_id, leases.concerned))
    mine, started = await _leave(connection, sql, worker_id, endings, leases)
    settled.hold.own_leases()
    crash.point("settle.left")
    await _keep_attempts(connection, sql, mine, worker, started)
    survivors = [ending.id for ending in mine if ending.survived and ending.outcome is None]
    if survivors:
        await connection.execute(sql["survive"], survivors)
    finals = await _finals(connection, sql, mine, started)
    over = {final.id for final in finals}
    finals += await _unfinished(connection, sql, [e for e in mine if e.id not in over], settled)
    ended = await write(connection, sql, finals, settled)
    crash.point("settle.written")
    if given:
        sent = {key.id for ending in mine if ending.id in ended for key in _keys(ending)}
        await keys.drop(caller, sql, [key for key in given if key.id not in sent])
    for ending in mine:
        if isinstance(ending.more, Outbox) and ending.id in ended:
            await _send(connection, sql, ending.more, ended, settled)
    crash.point("settle.sent")
    await follow(connection, sql, ended, settled)


def _keys(ending: Ending) -> list[KeyRow]:
    """The keys of what a handler dispatched."""
    return [key for plan in ending.more.plans for key in plan.keys] if isinstance(ending.more, Outbox) else []


async def _lock(
    connection: Connection,
    sql: Statements,
    settled: Settled,
    endings: Sequence[Ending],
    own: tuple[UUID, Sequence[int]],
) -> None:
    """Lock the flows that these endings change, and hold the jobs that they may cancel: those they race with, and the
    other items of a map."""
    flows = {ending.flow_id for ending in endings if ending.flow_id is not None}
    ids = [ending.id for ending in endings if ending.outcome is not None]
    jobs: set[UUID] = set()
    if ids:
        failed = [ending.id for ending in endings if ending.outcome is Outcome.FAILED]
        for flow, id in await connection.fetch(sql["racing"], ids, failed):
            flows.add(flow)
            jobs.add(id)
    hold = settled.hold
    if flows or hold.first_jobs or hold.first_counters:
        await hold_first(connection, sql, settled, own, flows, jobs.difference(ids))


async def _leave(
    connection: Connection, sql: Statements, worker_id: UUID, endings: Sequence[Ending], leases: Leases
) -> tuple[list[Ending], dict[UUID, datetime]]:
    """Of jobs that leave their leases, those that were this worker's, and since when they ran.

    A job may be among the endings twice: it was taken out of a lease while its worker was about to say what came of it,
    and is in another one now. Then what is said of the first does not count.
    """
    left = await connection.fetch(
        sql["leave"],
        worker_id,
        leases.concerned,
        leases.spent,
        [ending.id for ending in endings],
        [ending.lease for ending in endings],
        [ending.attempt for ending in endings],
    )
    leases_of = {row[0]: row[1] for row in left}
    mine = [ending for ending in endings if leases_of.get(ending.id) == ending.lease]
    return mine, {row[0]: row[2] for row in left}


async def _unfinished(
    connection: Connection, sql: Statements, endings: Sequence[Ending], settled: Settled
) -> list[Final]:
    """Jobs that go on: they come back, wait at a gate, or wait for their items. Those that end after all.

    Among those that come back are handlers that were asked to stop, where a retry of the flow has taken that back.
    """
    finals = await come_back(
        connection,
        sql,
        [(e.id, e.attempts_used, e.delay) for e in endings if e.more is None],
        settled,
    )
    for ending in endings:
        if isinstance(ending.more, Parked):
            finals += await gates.park(connection, sql, ending, ending.more, settled)
        elif isinstance(ending.more, Expansion):
            finals += await grow.expand(connection, sql, ending, ending.more, settled)
    return finals


async def _finals(
    connection: Connection, sql: Statements, endings: Sequence[Ending], started: Mapping[UUID, datetime]
) -> list[Final]:
    """The outcomes. What was asked to stop and did not succeed is cancelled, also where its last attempt failed; a flow
    that was asked to is what its jobs make of it."""
    bad = [e for e in endings if e.outcome in (Outcome.CANCELLED, Outcome.FAILED)]
    asked = {one.id: one for one in await stop_requests(connection, sql, [e.id for e in bad])} if bad else {}
    finals = []
    for e in endings:
        request = asked.get(e.id)
        if e.outcome is None or (e.interrupted and request is None):
            continue
        final = Final(e.id, e.outcome, e.attempt, e.result, started[e.id], None, e.error)
        if request is not None and not request.is_flow:
            final = final._replace(outcome=Outcome.CANCELLED, error=request.words, harmless=request.harmless)
        elif request is not None:
            both = _both(request.words, e.error) if e.outcome is Outcome.CANCELLED else e.error
            final = final._replace(error=both, harmless=request.harmless)
        finals.append(final)
    return finals


def _both(asked: str | None, own: str | None) -> str | None:
    """Why it was asked to stop, and what the end of a flow has to tell: how its compensations went."""
    if asked is None or own is None:
        return asked or own
    return codec.dump(codec.load(asked) | codec.load(own))


async def _send(
    connection: Connection, sql: Statements, outbox: Outbox, ended: Mapping[UUID, Ended], settled: Settled
) -> None:
    """Write what a handler dispatched and spawned: here, and only here, it becomes real."""
    for plan in outbox.plans:
        duplicates = await insert.insert_for(AsyncpgCaller(connection, nullcontext, own=True), sql, plan)
        written = plan.without(duplicates) if duplicates else plan
        settled.queues |= written.queues()
        settled.scheduled |= written.scheduled()
    if outbox.growth is not None:
        await grow.grow(connection, sql, outbox.growth, settled, ended)


async def _keep_attempts(
    connection: Connection, sql: Statements, endings: Sequence[Ending], worker: str, started: dict[UUID, datetime]
) -> None:
    kept = [(e.id, e.attempt, started[e.id], *e.failure) for e in endings if e.failure is not None]
    if kept:
        ids, attempts, times, *failures = map(list, zip(*kept, strict=True))
        await connection.execute(sql["record_attempts"], ids, attempts, worker, times, *failures)
