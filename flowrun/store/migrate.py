"""The schema: numbered SQL files, applied once each, in order, under a lock."""

from __future__ import annotations

import asyncio
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import asyncpg

from flowrun.errors import DatabaseError, MigrationNeeded, SchemaTooNew
from flowrun.logs import Log
from flowrun.store.address import said
from flowrun.store.pool import Connection
from flowrun.store.statement import quote, render

logger = Log("flowrun.migrate")

BREAKS = "breaks"
"""How the name of a migration begins after which workers of the version before cannot work."""
LOCK_TIMEOUT = "3s"
"""How long a migration waits for a lock on a table: everybody who uses the table waits behind it meanwhile."""
_IN_THE_WAY = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)
"""Somebody has a table; or has one, and wants another that the migration has: it takes them one after the other."""
TRIES = 5
PAUSE = 1.0
"""Seconds before it tries again, times the number of the try."""
_PATIENT = """select set_config(name, '0', true)
from unnest(array['lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout']) as name"""
_LOCK = 0x666C6F7772756E  # "flowrun"
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_TABLE = """create table if not exists flowrun.migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)"""


class Migration(NamedTuple):
    """One step of the schema."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Of the file as shipped, so that a changed file is noticed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """The migrations this flowrun ships, in order."""
    folder = files("flowrun.store") / "migrations"
    named = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    return tuple(sorted(Migration(int(match[1]), match[2], file.read_text("utf-8")) for match, file in named))


def script(schema: str) -> str:
    """All migrations as one SQL script that can be run by psql, Alembic or Django; needs no connection."""
    parts = [f"create schema if not exists {quote(schema)};", render(_TABLE, schema) + ";"]
    for migration in migrations():
        parts += [
            f"-- {migration.number:04d}_{migration.name}",
            render(migration.text, schema).strip(),
            render(
                "insert into flowrun.migrations (number, name, checksum) "  # noqa: S608 - from our own file names
                f"values ({migration.number}, '{migration.name}', '{migration.checksum}');",
                schema,
            ),
        ]
    return "begin;\n\n" + "\n\n".join(parts) + "\n\ncommit;\n"


async def migrate(connection: Connection, schema: str) -> list[Migration]:
    """Bring the schema up to this flowrun; the migrations that were applied.

    All or nothing. Safe when several processes do it at once, and while workers run. Waits a few seconds for each
    lock, and several times. Raises DatabaseError when somebody has a table for longer, SchemaTooNew when a newer
    flowrun was there before, and MigrationNeeded when an applied migration is not the one this flowrun ships.
    """
    for number in range(1, TRIES):
        try:
            return await _migrate(connection, schema)
        except _IN_THE_WAY:
            logger.warning("a migration waits for a lock that somebody holds; trying again")
            await asyncio.sleep(PAUSE * number)
    try:
        return await _migrate(connection, schema)
    except _IN_THE_WAY as error:
        raise DatabaseError(
            f"schema {schema!r} could not be migrated, and nothing of it was changed: {said(error)}; somebody uses its "
            "tables in a long transaction: `flowrun doctor` names who, then migrate again"
        ) from error


async def _migrate(connection: Connection, schema: str) -> list[Migration]:
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_PATIENT)
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute("select set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
        if not await connection.fetchval("select true from pg_namespace where nspname = $1", schema):
            # Only then: `if not exists` asks for the right to create schemas even where there is nothing to create.
            await connection.execute(f"create schema {quote(schema)}")
        await connection.execute(render(_TABLE, schema))
        pending = _pending(await _applied(connection, schema), schema)
        for migration in pending:
            await connection.execute(render(migration.text, schema))
            await connection.execute(
                render("insert into flowrun.migrations (number, name, checksum) values ($1, $2, $3)", schema),
                migration.number,
                migration.name,
                migration.checksum,
            )
    return pending


async def verify(connection: Connection, schema: str) -> None:
    """Raise MigrationNeeded when the schema lacks something of this flowrun's.

    A newer one will do: a migration keeps what the version before needs, so that during a deploy a worker of that
    version can still be started (it may have crashed). One that cannot do so says it by its name, which begins with
    "breaks", and SchemaTooNew is raised.
    """
    try:
        applied = await _applied(connection, schema)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise MigrationNeeded(f"schema {schema!r} has no flowrun tables; run `flowrun migrate`") from None
    shipped = {migration.number for migration in migrations()}
    newer = {number: step for number, step in applied.items() if number not in shipped}
    if newer and not any(name.startswith(BREAKS) for name, _ in newer.values()):
        logger.warning("schema %r is at %d, this flowrun knows %d: upgrade it soon", schema, max(newer), max(shipped))
        applied = {number: step for number, step in applied.items() if number in shipped}
    if pending := _pending(applied, schema):
        have, want = max(applied, default=0), pending[-1].number
        raise MigrationNeeded(f"schema {schema!r} is at {have}, this flowrun needs {want}; run `flowrun migrate`")


async def _applied(connection: Connection, schema: str) -> dict[int, tuple[str, str]]:
    """By number: name and checksum."""
    rows = await connection.fetch(render("select number, name, checksum from flowrun.migrations", schema))
    return {row[0]: (row[1], row[2]) for row in rows}


def _pending(applied: dict[int, tuple[str, str]], schema: str) -> list[Migration]:
    shipped = {migration.number: migration for migration in migrations()}
    if newer := set(applied) - set(shipped):
        raise SchemaTooNew(
            f"schema {schema!r} is at {max(newer)}, this flowrun knows {max(shipped)}: upgrade flowrun in this process"
        )
    for number, (_, checksum) in applied.items():
        if shipped[number].checksum != checksum:
            raise MigrationNeeded(
                f"schema {schema!r}: migration {number} was applied from another file than this flowrun ships; "
                "restore the file, or compare `flowrun migrate --sql` with the database"
            )
    return [migration for number, migration in sorted(shipped.items()) if number not in applied]
