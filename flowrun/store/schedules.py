"""What people do with schedules: write, pause, resume, trigger and remove them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from flowrun import codec
from flowrun.core.recurrence import Recurrence
from flowrun.core.ticking import Catchup, Overlap
from flowrun.errors import NotFound, NotPossible
from flowrun.sealing import PLAIN, Sealing, rows
from flowrun.store import control, ticks
from flowrun.store.bulk import By
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


class Wanted(NamedTuple):
    """A schedule as somebody writes it."""

    key: str
    rule: Recurrence
    overlap: Overlap
    catchup: Catchup
    kind: int
    """0: it dispatches a job, 1: a flow."""
    name: str
    template: Mapping[str, Any]
    sealing: Sealing = PLAIN

    def columns(self) -> list[Any]:
        """The values of insert_schedule.sql but for the last."""
        rule = self.rule
        return [
            self.key, rule.cron, rule.every, rule.timezone, rule.start, rule.end, self.overlap, self.catchup, self.kind,
            self.name, codec.dump(self.template),
        ]  # fmt: skip


class Triggered(NamedTuple):
    """What was dispatched by hand."""

    id: UUID
    kind: int
    name: str
    settled: Settled


async def put(connection: Connection, sql: Statements, wanted: Wanted, *, now: datetime | None = None) -> bool:
    """Write a schedule, or change it to what is wanted; whether that was a change.

    The next tick stays what it is unless the rule changes.
    """
    async with connection.transaction(isolation="read_committed"):
        while True:
            moment = await connection.fetchval(sql["moment"], now)
            row = await connection.fetchrow(sql["lock_schedule"], wanted.key)
            if row is not None:
                return await _change(connection, sql, wanted, row, moment)
            if await connection.fetchval(sql["insert_schedule"], *wanted.columns(), wanted.rule.after(moment)):
                return True


async def remove(connection: Connection, sql: Statements, key: str | None, by: By) -> int:
    """Remove a schedule, or all; how many there were."""
    async with connection.transaction(isolation="read_committed"):
        rows = await connection.fetch(sql["remove_schedules"], key)
        for row in rows:
            await _note(connection, sql, "remove", row["key"], by)
    return len(rows)


async def pause(
    connection: Connection, sql: Statements, key: str, by: By, *, paused: bool, now: datetime | None = None
) -> bool:
    """Pause a schedule, or let it go on with its next tick from now; whether that was a change. Raises NotFound."""
    async with connection.transaction(isolation="read_committed"):
        row = await _lock(connection, sql, key)
        if row["paused"] is paused:
            return False
        next_at = row["next_at"] if paused else await _next(connection, sql, ticks.rule_of(row), row, now)
        await connection.execute(sql["pause_schedule"], key, paused, next_at)
        await _note(connection, sql, "pause" if paused else "resume", key, by)
    return True


async def trigger(
    connection: Connection,
    sql: Statements,
    key: str,
    by: By,
    *,
    sealing: Sealing,
    overlap: Overlap | None = None,
    now: datetime | None = None,
) -> Triggered:
    """Dispatch what a schedule dispatches, now. Raises NotFound; NotPossible where it would overlap and may not."""
    settled = Settled()
    async with connection.transaction(isolation="read_committed"):
        row = await _lock(connection, sql, key)
        moment = await connection.fetchval(sql["moment"], now)
        policy: Overlap = overlap or row["overlap"]
        if policy != "allow":
            await _check_free(connection, sql, row, policy, settled)
        dispatch = ticks.make(key, codec.load(row["template"]), moment, sealing, keyed=False)
        await ticks.write(connection, sql, [dispatch], settled)
        columns = ([key], [row["next_at"]], [row["waits_for"]], [moment], [dispatch.id], [1], [0])
        await connection.execute(sql["ticked"], *columns)
        await _note(connection, sql, "trigger", key, by, dispatch.id, row["kind"])
    return Triggered(dispatch.id, row["kind"], row["name"], settled)


async def _check_free(connection: Connection, sql: Statements, row: Any, overlap: Overlap, settled: Settled) -> None:
    """Raise NotPossible while what was dispatched last has not ended; with ``cancel`` it is cancelled first."""
    run = row["last_id"]
    if not await ticks.open_runs(connection, sql, [run]):
        return
    key = row["key"]
    if overlap != "cancel":
        raise NotPossible(
            f"schedule {key!r} does not overlap ({overlap!r}) and {run} has not ended; trigger it with "
            'overlap="cancel" or "allow"'
        )
    await ticks.stop(connection, sql, key, run, settled)
    if await ticks.open_runs(connection, sql, [run]):
        raise NotPossible(f"schedule {key!r}: {run} has not ended; cancel it, and trigger the schedule then")


async def listed(connection: Connection, sql: Statements, key: str | None) -> list[dict[str, Any]]:
    """Schedules by key, or one of them."""
    return [dict(row) for row in await connection.fetch(sql["list_schedules"], key)]


async def standing(
    connection: Connection, sql: Statements, key: str | None, *, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Where schedules stand, and who could run what they dispatch: all, or one."""
    rows = [dict(row) for row in await connection.fetch(sql["standing_schedules"], key, now)]
    for row in rows:
        row["unserved"] = codec.load(row["unserved"])
    return rows


async def _change(connection: Connection, sql: Statements, wanted: Wanted, row: Any, moment: datetime) -> bool:
    same_rule = ticks.rule_of(row) == wanted.rule
    is_like = (row["overlap"], row["catchup"], row["kind"], row["name"])
    same = same_rule and is_like == (wanted.overlap, wanted.catchup, wanted.kind, wanted.name)
    if same and _opened(wanted, codec.load(row["template"])) == _opened(
        wanted, codec.load(codec.dump(wanted.template))
    ):
        return False
    next_at = row["next_at"] if same_rule else await _next(connection, sql, wanted.rule, row, moment)
    free = not same_rule or wanted.overlap in ("allow", "skip")
    await connection.execute(sql["change_schedule"], *wanted.columns(), next_at, free)
    return True


def _opened(wanted: Wanted, template: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A template to be compared. What cannot be opened any more is like no other."""
    return rows.opened_template(wanted.sealing, template, wanted.key)


async def _next(
    connection: Connection, sql: Statements, rule: Recurrence, row: Any, now: datetime | None
) -> datetime | None:
    """The next tick from now on: never one that was dispatched before, whatever the clock says."""
    moment: datetime = await connection.fetchval(sql["moment"], now)
    return rule.after(moment if row["last_at"] is None else max(moment, row["last_at"]))


async def _lock(connection: Connection, sql: Statements, key: str) -> Any:
    row = await connection.fetchrow(sql["lock_schedule"], key)
    if row is None:
        raise NotFound(f"no schedule {codec.clean_text(key, 200)!r} is stored")
    return row


async def _note(
    connection: Connection, sql: Statements, verb: str, key: str, by: By, run: UUID | None = None, kind: int = 0
) -> None:
    flow, job = (run, None) if kind else (None, run)
    await control.note(connection, sql, flow, job, verb, by, {"schedule": key})
