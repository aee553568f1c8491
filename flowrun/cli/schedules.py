"""``flowrun schedules``: what is dispatched again and again."""

from __future__ import annotations

from typing import Any, Literal

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.asking import SCHEMA, Actor, App, AsJson, Dsn, Reason, Schema, actor_or_me, ask, show_json, show_rows
from flowrun.cli.exits import FAILED, OK, UsageError
from flowrun.client.schedules import ScheduleStatus


def schedules(
    action: Literal["list", "show", "explain", "pause", "resume", "trigger", "remove"] = "list",
    key: str | None = None,
    *,
    overlap: Literal["allow", "skip", "queue", "cancel"] | None = None,
    actor: Actor = None,
    reason: Reason = None,
    as_json: AsJson = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """List the schedules, or show, explain, pause, resume, trigger or remove one. A trigger prints what it dispatched.

    Parameters
    ----------
    action
        list, show, explain (why it does not tick), pause, resume, trigger or remove.
    key
        Of the schedule.
    overlap
        What a trigger does while the run before has not ended; default: what the schedule says.
    """
    if action == "list":
        _list(ask(dsn, schema, lambda app: app.schedules.list()), as_json=as_json)
        return OK
    if key is None:
        raise UsageError(f"flowrun schedules {action} needs the key of a schedule")
    by: dict[str, Any] = {"actor": actor_or_me(actor), "reason": reason}
    if action == "show":
        _show(ask(dsn, schema, lambda app: app.schedules.get(key)), as_json=as_json)
    elif action == "explain":
        explanation = ask(dsn, schema, lambda app: app.schedules.explain(key))
        show_json(explanation) if as_json else terminal.show(str(explanation))
    elif action == "trigger":
        run = ask(dsn, schema, lambda app: app.schedules.trigger(key, overlap=overlap, **by), app)
        terminal.show(str(run.id))
    elif action == "remove":
        if not ask(dsn, schema, lambda app: app.schedules.remove(key, **by)):
            terminal.complain(f"no schedule {key!r} is stored")
            return FAILED
    elif not ask(dsn, schema, lambda app: _pause(app, key, action, by)):
        terminal.say(f"schedule {key!r} {'was paused already' if action == 'pause' else 'was not paused'}")
    return OK


async def _pause(app: Flowrun, key: str, action: str, by: dict[str, Any]) -> bool:
    return await (app.schedules.pause if action == "pause" else app.schedules.resume)(key, **by)


def _list(rows: list[ScheduleStatus], *, as_json: bool) -> None:
    columns = {
        "schedule": lambda row: row.key, "rule": lambda row: row.cron or row.rule,
        "zone": lambda row: row.timezone if row.cron else None, "dispatches": lambda row: f"{row.kind} {row.name}",
        "overlap": lambda row: row.overlap, "next": lambda row: "paused" if row.paused else row.next_at,
        "last": lambda row: row.last_at, "times": lambda row: row.dispatched or None,
        "skipped": lambda row: row.skipped or None, "now": _now,
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="no schedule is stored")


def _show(row: ScheduleStatus, *, as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    told = {
        "schedule": row.key, "rule": " = ".join(part for part in (row.cron, row.rule) if part),
        "from": row.start, "until": row.end, "dispatches": f"{row.kind} {row.name}", "overlap": row.overlap,
        "catchup": row.catchup, "next": "paused" if row.paused else row.next_at, "last": row.last_at,
        "last run": row.last_id, "times": row.dispatched, "skipped": row.skipped, "now": _now(row),
        "written": row.created_at, "changed": row.changed_at,
    }  # fmt: skip
    for name, value in told.items():
        if value is not None:
            terminal.show(f"{name:<10} {value}")


def _now(row: ScheduleStatus) -> str | None:
    if row.waits:
        return "a tick waits for the run before"
    return "running" if row.running else None
