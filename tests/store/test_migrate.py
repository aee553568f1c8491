"""The schema: built once, by whoever comes first, under any name, and checked before anything else is done."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun.errors import MigrationNeeded, SchemaTooNew
from flowrun.store import migrate
from flowrun.store.migrate import Migration
from tests.store.stage import connections

FRESH = True
ODD = ['We"ird. Schema', "select", "ü-ñ", "a.b", "$1", "%s", "flowrun.flowrun", "'", "x" * 63, " ", "{0}", "\\1"]


async def shape(connection: asyncpg.Connection, schema: str) -> dict[str, list[str]]:
    """Everything a schema consists of, without its name."""
    parts = {
        "columns": """select table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
            || coalesce(column_default, '') from information_schema.columns where table_schema = $1""",
        "constraints": """select c.relname || ': ' || pg_get_constraintdef(k.oid) from pg_constraint k
            join pg_class c on c.oid = k.conrelid where k.connamespace = $1::text::regnamespace""",
        "indexes": """select c.relname || ': ' || i.relname from pg_index x join pg_class c on c.oid = x.indrelid
            join pg_class i on i.oid = x.indexrelid where c.relnamespace = $1::text::regnamespace""",
        "options": """select relname || ': ' || relkind::text || coalesce(array_to_string(reloptions, ','), '') from pg_class
            where relnamespace = $1::text::regnamespace""",
    }
    found = {}
    for part, text in parts.items():
        argument = schema if part == "columns" else '"' + schema.replace('"', '""') + '"'
        found[part] = sorted(str(row[0]).replace(f'"{schema}"', "S") for row in await connection.fetch(text, argument))
    return found


async def test_fresh_then_nothing_to_do(connection: asyncpg.Connection) -> None:
    await connection.execute("drop schema flowrun cascade")
    with pytest.raises(MigrationNeeded, match="no flowrun tables; run `flowrun migrate`"):
        await migrate.verify(connection, "flowrun")
    applied = await migrate.migrate(connection, "flowrun")
    assert applied == list(migrate.migrations())
    await migrate.verify(connection, "flowrun")
    assert await migrate.migrate(connection, "flowrun") == []
    rows = await connection.fetch("select number, name, checksum from flowrun.migrations order by number")
    assert [tuple(row) for row in rows] == [(step.number, step.name, step.checksum) for step in migrate.migrations()]


async def test_numbers_have_no_gap() -> None:
    assert [step.number for step in migrate.migrations()] == list(range(1, len(migrate.migrations()) + 1))


async def test_eight_at_once(dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute("drop schema flowrun cascade")
    async with connections(dsn, 8) as opened:
        applied = await asyncio.gather(*(migrate.migrate(one, "flowrun") for one in opened))
    assert sorted(map(len, applied)) == [0] * 7 + [len(migrate.migrations())]
    await migrate.verify(connection, "flowrun")


async def test_eight_at_once_where_transactions_are_repeatable_reads(dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute("drop schema flowrun cascade")
    async with connections(dsn, 8, default_transaction_isolation="repeatable read") as opened:
        applied = await asyncio.gather(*(migrate.migrate(one, "flowrun") for one in opened))
    assert sorted(map(len, applied)) == [0] * 7 + [len(migrate.migrations())]


@pytest.mark.parametrize("schema", ODD)
async def test_under_any_name(connection: asyncpg.Connection, schema: str) -> None:
    await migrate.migrate(connection, schema)
    await migrate.verify(connection, schema)
    assert await shape(connection, schema) == await shape(connection, "flowrun")


@pytest.mark.parametrize("schema", ["flowrun", *ODD[:3]])
async def test_the_script_builds_the_same(connection: asyncpg.Connection, schema: str) -> None:
    wanted = await shape(connection, "flowrun")
    await connection.execute("drop schema flowrun cascade")
    await connection.execute(migrate.script(schema))
    await migrate.verify(connection, schema)
    assert await shape(connection, schema) == wanted
    assert await migrate.migrate(connection, schema) == []


def ship(monkeypatch: pytest.MonkeyPatch, *steps: Migration) -> None:
    monkeypatch.setattr(migrate, "migrations", lambda: steps)


SHIPPED = migrate.migrations()[-1].number
NEXT = Migration(SHIPPED + 1, "more", "create table flowrun.more (id integer);\ncreate index on flowrun.more (id);")
BROKEN = Migration(SHIPPED + 2, "broken", "create table flowrun.third (id integer); select 1/0;")


async def test_older_than_the_code(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(monkeypatch, *migrate.migrations(), NEXT)
    with pytest.raises(
        MigrationNeeded, match=rf"is at {SHIPPED}, this flowrun needs {NEXT.number}; run `flowrun migrate`"
    ):
        await migrate.verify(connection, "flowrun")
    assert await migrate.migrate(connection, "flowrun") == [NEXT]
    await migrate.verify(connection, "flowrun")
    assert await connection.fetchval("select count(*) from flowrun.more") == 0


async def test_newer_than_the_code(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """During a deploy a worker of the version before can still be started; migrating is for the newer one."""
    known = migrate.migrations()
    ship(monkeypatch, *known, NEXT)
    await migrate.migrate(connection, "flowrun")
    ship(monkeypatch, *known)
    await migrate.verify(connection, "flowrun")
    assert "upgrade it soon" in caplog.text
    with pytest.raises(SchemaTooNew):
        await migrate.migrate(connection, "flowrun")
    await connection.execute("delete from flowrun.migrations where number = 1")
    with pytest.raises(MigrationNeeded):
        await migrate.verify(connection, "flowrun")


async def test_newer_than_the_code_can_bear(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrate.migrations()
    ship(monkeypatch, *known, NEXT._replace(name="breaks_the_leases"))
    await migrate.migrate(connection, "flowrun")
    ship(monkeypatch, *known)
    for verb in (migrate.verify, migrate.migrate):
        with pytest.raises(SchemaTooNew, match=rf"is at {NEXT.number}, this flowrun knows {SHIPPED}: upgrade flowrun"):
            await verb(connection, "flowrun")


async def test_applied_from_another_file(connection: asyncpg.Connection) -> None:
    await connection.execute("update flowrun.migrations set checksum = 'x'")
    for verb in (migrate.verify, migrate.migrate):
        with pytest.raises(MigrationNeeded, match=r"migration 1 was applied from another file.*flowrun migrate --sql"):
            await verb(connection, "flowrun")


async def test_a_step_that_fails_leaves_nothing_of_any(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await shape(connection, "flowrun")
    ship(monkeypatch, *migrate.migrations(), NEXT, BROKEN)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(connection, "flowrun")
    assert await shape(connection, "flowrun") == before


async def test_whoever_waits_sees_what_the_first_did(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(monkeypatch, *migrate.migrations(), NEXT)
    async with connections(dsn, 4) as opened:
        applied = await asyncio.gather(*(migrate.migrate(one, "flowrun") for one in opened))
    assert sorted(map(len, applied)) == [0, 0, 0, 1]


async def test_a_role_that_owns_the_schema_needs_no_right_to_create_any(connection: asyncpg.Connection) -> None:
    role = f"flowrun_limited_{connection.get_server_pid()}"
    await connection.execute(f"create role {role}; create schema theirs authorization {role}")
    try:
        await connection.execute(f"set role {role}")
        assert await migrate.migrate(connection, "theirs")
        await migrate.verify(connection, "theirs")
    finally:
        await connection.execute(f"reset role; drop schema theirs cascade; drop role {role}")
