"""Taking ticks: what is due is dispatched, and its schedule moved on, in one transaction.

Who takes a tick has its schedule's row locked, and leaves it with a later ``next_at``: so each is taken once, by
whichever worker comes first. Besides, what a tick dispatches has a key made of the schedule's and the tick, so that one
comes once even if its schedule was removed and written again meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from flowrun import codec, crash, mint
from flowrun.core.plan import KeyRow, Plan
from flowrun.core.recurrence import Recurrence
from flowrun.core.template import from_template, tick_options
from flowrun.core.ticking import Standing, Verdict, decide
from flowrun.errors import NotFound
from flowrun.sealing import PLAIN, Sealing, rows
from flowrun.store import control, insert
from flowrun.store.blame import Fault, fault_of
from flowrun.store.bulk import By
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection, Id
from flowrun.store.statement import Statements

BATCH = 50
"""Schedules that one transaction deals with."""
JOBS = 2000
"""Jobs after which a schedule leaves further ticks to the next look."""

_mint = partial(mint.flow_ids, make=Id)


class TickFailed(Exception):
    """A schedule that this process cannot deal with: a time zone it does not know, a later version's template."""

    def __init__(self, key: str) -> None:
        super().__init__(f"schedule {key!r}")
        self.key = key


@dataclass(slots=True)
class Ticked:
    """What a look at the schedules did."""

    settled: Settled = field(default_factory=Settled)
    """What became ready, and what was cancelled to make room."""
    schedules: int = 0
    """How many were dealt with."""
    next_in: float | None = None
    """Seconds until the next tick; None: there is none. Not positive: another look is due, or somebody else has one."""
    waits_for: set[UUID] = field(default_factory=set)
    """Runs after whose end another look is due."""


class Dispatch(NamedTuple):
    """What a tick dispatches."""

    tick: datetime
    id: UUID
    """Of the job or the flow."""
    plan: Plan


@dataclass(slots=True)
class _Turn:
    """One schedule in a look."""

    row: Any
    verdict: Verdict
    dispatches: list[Dispatch] = field(default_factory=list)


async def take(
    connection: Connection,
    sql: Statements,
    *,
    sealing: Sealing = PLAIN,
    now: datetime | None = None,
    unfit: Collection[str] = (),
    limit: int = BATCH,
) -> Ticked:
    """Take the ticks that are due, of ``limit`` schedules, but not of those ``unfit``.

    ``now`` is the moment it is; None: by the database's clock. Raises TickFailed for a schedule that cannot be dealt
    with, where ``limit`` is 1; else whatever is wrong with it.
    """
    ticked = Ticked()
    async with connection.transaction(isolation="read_committed"):
        due = await connection.fetch(sql["due_schedules"], now, limit, list(unfit))
        if due:
            try:
                await _take(connection, sql, due, ticked, sealing)
            except Exception as error:
                if limit == 1 and fault_of(error) is Fault.DATA:
                    raise TickFailed(due[0]["key"]) from error
                raise
        ticked.schedules = len(due)
        ticked.next_in = await connection.fetchval(sql["next_tick"], now, list(unfit))
    return ticked


def rule_of(row: Any) -> Recurrence:
    """A schedule's rule, as stored."""
    return Recurrence(row["cron"], row["every_us"], row["timezone"], row["starts_at"], row["ends_at"])


def make(
    key: str,
    template: Mapping[str, Any],
    tick: datetime,
    sealing: Sealing,
    keyed: bool = True,
) -> Dispatch:
    """What a schedule dispatches for a tick, under new ids; ``keyed``: once only. Raises NotReadable."""
    plan, id = from_template(dict(template), _mint, codec.dump, tick_options(key, tick))
    plan = rows.from_schedule(sealing, plan, key, [job["id"] for job in template["jobs"]])
    if keyed:
        plan.keys = [KeyRow(f"schedule:{key}", tick.astimezone(UTC).isoformat(), id, "existing", None)]
    return Dispatch(tick, id, plan)


async def write(
    connection: Connection, sql: Statements, dispatches: Iterable[Dispatch], settled: Settled
) -> dict[UUID, UUID]:
    """Write what ticks dispatch; by id of what was dispatched before, whose tick it was."""
    singles, flows = Plan(), list[Plan]()
    for one in dispatches:
        if one.plan.flows:
            flows.append(one.plan)
        else:
            singles.jobs += one.plan.jobs
            singles.keys += one.plan.keys
            singles.deadlines += one.plan.deadlines
    singles.free = singles.jobs
    caller = AsyncpgCaller(connection, nullcontext, own=True)
    duplicates: dict[UUID, UUID] = {}
    for plan in (singles, *flows):
        if plan.jobs:
            again = await insert.insert_for(caller, sql, plan)
            written = plan.without(again)
            settled.queues |= written.queues()
            settled.scheduled |= written.scheduled()
            duplicates |= again
    return duplicates


async def open_runs(connection: Connection, sql: Statements, ids: Iterable[UUID | None]) -> set[UUID]:
    """Of some jobs and flows, those that have not ended."""
    wanted = [id for id in ids if id is not None]
    return {row[0] for row in await connection.fetch(sql["open_runs"], wanted)} if wanted else set()


async def stop(connection: Connection, sql: Statements, key: str, run: UUID, settled: Settled) -> None:
    """Cancel what a schedule dispatched before, for its next tick."""
    with suppress(NotFound):
        await control.cancel_job(connection, sql, run, By(reason=f"the next tick of schedule {key!r}"), settled)


async def _take(connection: Connection, sql: Statements, due: Sequence[Any], ticked: Ticked, sealing: Sealing) -> None:
    running = await open_runs(connection, sql, [row["last_id"] for row in due])
    turns: list[_Turn] = []
    for row in due:
        standing = Standing(
            row["next_at"], row["overlap"], row["catchup"], row["last_id"] in running, row["waits_for"] is not None
        )
        if standing.held and row["waits_for"] in running:  # it runs again: somebody has retried it
            turns.append(_Turn(row, Verdict((), 0, row["next_at"], waits=True)))
            continue
        template = codec.load(row["template"])
        most = max(1, JOBS // len(template["jobs"]))
        turn = _Turn(row, decide(rule_of(row), standing, row["moment"], most))
        if turn.verdict.stop:
            await _make_room(connection, sql, turn, ticked)
        turn.dispatches = [make(row["key"], template, tick, sealing) for tick in turn.verdict.ticks]
        turns.append(turn)
    duplicates = await write(connection, sql, [one for turn in turns for one in turn.dispatches], ticked.settled)
    crash.point("tick.written")
    await connection.execute(
        sql["ticked"], *map(list, zip(*(_done(turn, duplicates, ticked) for turn in turns), strict=True))
    )


async def _make_room(connection: Connection, sql: Statements, turn: _Turn, ticked: Ticked) -> None:
    """Cancel the run under way; its successor waits until it has ended."""
    run = turn.row["last_id"]
    await stop(connection, sql, turn.row["key"], run, ticked.settled)
    if await open_runs(connection, sql, [run]):
        turn.verdict = Verdict((), turn.verdict.skipped, turn.verdict.ticks[-1], waits=True)


def _done(turn: _Turn, duplicates: Mapping[UUID, UUID], ticked: Ticked) -> tuple[Any, ...]:
    """The values of ticked.sql for one schedule."""
    row, verdict = turn.row, turn.verdict
    last = turn.dispatches[-1] if turn.dispatches else None
    last_id = None if last is None else duplicates.get(last.id, last.id)
    waits_for = (last_id or row["last_id"]) if verdict.waits else None
    if waits_for is not None:
        ticked.waits_for.add(waits_for)
    dispatched = sum(one.id not in duplicates for one in turn.dispatches)
    tick = None if last is None else last.tick
    return row["key"], verdict.next_at, waits_for, tick, last_id, dispatched, verdict.skipped
