"""``flowrun migrate``."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Parameter

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.database import opened
from flowrun.cli.exits import OK
from flowrun.config import Settings
from flowrun.store.address import where
from flowrun.store.migrate import script


def migrate(
    *,
    sql: bool = False,
    dsn: Annotated[str | None, Parameter(help="The database; default: the embedded PostgreSQL.")] = None,
    schema: str = Settings().schema,
) -> int:
    """Create flowrun's tables, or bring them up to this version. Prints what was applied.

    Parameters
    ----------
    sql
        Print the SQL and do nothing: for psql, Alembic, Django. Needs no database.
    schema
        The PostgreSQL schema that holds everything.
    """
    if sql:
        terminal.show(script(schema).rstrip())
        return OK
    with opened(dsn) as address:
        done = asyncio.run(Flowrun(address, schema=schema).migrate())
    for name in done:
        terminal.show(name)
    terminal.say(
        f"schema {schema!r} at {where(address)} " + ("is up to date" if done else "was up to date: nothing to do")
    )
    return OK
