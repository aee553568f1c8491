from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from flowrun.testing import databases
from tests.cli.conftest import Shell


@pytest.fixture
async def empty(flowrun_postgres_server: tuple[str, str]) -> AsyncIterator[str]:
    """A database without flowrun's tables."""
    dsn = await databases.create(flowrun_postgres_server[0], "template0")
    yield dsn
    await databases.drop(flowrun_postgres_server[0], dsn)


async def test_it_applies_once_and_says_what(shell: Shell, empty: str) -> None:
    code, out, err = await shell.run("migrate", "--dsn", empty)
    assert code == 0
    assert out.splitlines()[0] == "0001_initial"
    assert "up to date" in err
    code, out, err = await shell.run("migrate", FLOWRUN_DSN=empty)
    assert (code, out) == (0, "")
    assert "nothing to do" in err


async def test_a_schema_of_another_name(shell: Shell, empty: str) -> None:
    assert (await shell.run("migrate", "--dsn", empty, "--schema", "jobs"))[0] == 0
    connection = await asyncpg.connect(empty)
    found = [row[0] for row in await connection.fetch("select distinct schemaname from pg_tables")]
    await connection.close()
    assert "jobs" in found
    assert "flowrun" not in found


async def test_sql_needs_no_database_and_makes_the_same_schema(shell: Shell, empty: str) -> None:
    code, script, err = await shell.run("migrate", "--sql", FLOWRUN_DSN="postgresql://127.0.0.1:1/none")
    assert (code, err) == (0, "")
    connection = await asyncpg.connect(empty)
    await connection.execute(script)
    await connection.close()
    code, out, err = await shell.run("migrate", "--dsn", empty)
    assert (code, out) == (0, "")
    server = await shell.start("serve", "shop:app", SHOP_DSN=empty)
    await server.says("runs 4 type(s)")


async def test_a_newer_schema_is_refused(shell: Shell, dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute("insert into flowrun.migrations (number, name, checksum) values (9999, 'later', '')")
    code, _, err = await shell.run("migrate", "--dsn", dsn)
    assert code == 1
    assert err.startswith("flowrun: schema 'flowrun' is at 9999")
    assert urlsplit(dsn).path.lstrip("/")
