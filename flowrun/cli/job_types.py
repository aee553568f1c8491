"""``flowrun types``: the types of jobs, paused and resumed."""

from __future__ import annotations

from typing import Literal

from flowrun.cli import terminal
from flowrun.cli.asking import SCHEMA, AsJson, Dsn, Schema, ask, show_rows
from flowrun.cli.exits import FAILED, OK, UsageError


def types(
    action: Literal["list", "pause", "resume"] = "list",
    name: str | None = None,
    *,
    timeout: float | None = None,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """List the types of jobs, or pause or resume one. After a pause no job of it begins; what runs goes on.

    Parameters
    ----------
    action
        list, pause or resume.
    name
        The type to pause or resume.
    timeout
        Seconds in which the workers have to answer a pause; default: their lease.
    """
    if action == "list":
        rows = ask(dsn, schema, lambda app: app.types.list())
        columns = {
            "type": lambda row: row.name, "ready": lambda row: row.ready,
            "paused": lambda row: "paused" if row.paused else None, "workers": lambda row: row.workers,
        }  # fmt: skip
        show_rows(rows, columns, as_json=as_json, nothing="no type is known")
        return OK
    if name is None:
        raise UsageError(f"flowrun types {action} needs the name of a type")
    if action == "pause":
        return _pause(dsn, schema, name, timeout)
    if not ask(dsn, schema, lambda app: app.types.resume(name)):
        terminal.say(f"type {name!r} was not paused")
    return OK


def _pause(dsn: str | None, schema: str, name: str, timeout: float | None) -> int:
    pause = ask(dsn, schema, lambda app: app.types.pause(name, timeout=timeout))
    if not pause:
        terminal.say(f"type {name!r} was paused already")
    if pause.running:
        terminal.say(f"{pause.running} of its jobs have begun already and go on")
    if pause.unheard:
        terminal.complain(f"it is paused, but these workers have not answered yet: {', '.join(pause.unheard)}")
    return FAILED if pause.unheard else OK
