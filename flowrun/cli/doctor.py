"""``flowrun doctor``: what is wrong with the database, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from rich.text import Text

from flowrun.cli import terminal
from flowrun.cli.asking import SCHEMA, AsJson, Dsn, Schema, show_json
from flowrun.cli.database import opened
from flowrun.cli.exits import FAILED, OK
from flowrun.client.doctor import examine
from flowrun.client.findings import Finding
from flowrun.config import Settings
from flowrun.dsn import check_dsn

_MARKS = {"ok": ("ok   ", "green"), "note": ("note ", "yellow"), "wrong": ("WRONG", "bold red")}


def doctor(
    *,
    pooler: bool = False,
    listen_dsn: str | None = None,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """Look for what is wrong: server, schema, rights, pooler, old transactions, locks, bloat, workers, unserved jobs.

    Exit code 1 when something is wrong. It changes nothing, and waits for nothing longer than seconds.

    Parameters
    ----------
    pooler
        The DSN leads through a pooler in transaction mode, and the app is told so.
    listen_dsn
        Where the app listens then.
    """
    settings = Settings(schema=schema, pooler=pooler, listen_dsn=None if listen_dsn is None else check_dsn(listen_dsn))
    with opened(dsn) as address:
        found = asyncio.run(examine(address, settings))
    return show_findings(found, as_json=as_json)


def show_findings(found: Iterable[Finding], *, as_json: bool) -> int:
    """Show what was found; the exit code for it."""
    found = list(found)
    for one in found:
        if as_json:
            show_json(one)
        else:
            _show(one)
    return FAILED if any(one.level == "wrong" for one in found) else OK


def _show(one: Finding) -> None:
    mark, style = _MARKS[one.level]
    line = Text.assemble((mark, style), f" {one.check}: {one.found}")
    console = terminal.console()
    console.print(line, soft_wrap=True)
    if one.advice is not None:
        console.print(Text(f"      {one.advice}", "dim"), soft_wrap=True)
