"""A test finds its database as new, whatever the test before it did."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.testing import databases


async def _shape(connection: asyncpg.Connection) -> dict[str, int]:
    tables = await connection.fetch(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('flowrun', 'public')"
    )
    return {name: await connection.fetchval(f"select count(*) from {name}") for (name,) in tables}


@pytest.mark.parametrize(
    "change",
    [
        "insert into flowrun.ready values ('q', 5, gen_random_uuid(), 't', 0)",
        "update flowrun.throttle set claims = 7",
        "delete from flowrun.migrations",
        "create table public.shop (id int)",
        "alter table flowrun.jobs add column more int",
        "drop index flowrun.jobs_flow",
        "drop schema flowrun cascade",
        "create function public.f() returns int language sql as 'select 1'",
        "insert into flowrun.steps select gen_random_uuid(), repeat('x', 1000), '1', now() from generate_series(1, 9000)",
    ],
)
async def test_everything_is_undone(dsn: str, change: str) -> None:
    connection = await asyncpg.connect(dsn)
    new = await _shape(connection)
    await connection.execute(change)
    await databases.renew(dsn)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await connection.execute("select 1")
    connection = await asyncpg.connect(dsn)
    assert await _shape(connection) == new
    assert await connection.fetchval("select claims from flowrun.throttle") == 0
    assert await connection.fetchval("select to_regclass('public.shop') is null and to_regproc('public.f') is null")
    assert await connection.fetchval("select to_regclass('flowrun.jobs_flow') is not null")
    assert await connection.fetchval("select pg_total_relation_size('flowrun.steps') < 8000000")
    await connection.close()


async def test_a_worker_that_was_left_running_is_gone(dsn: str) -> None:
    """What it was about to commit does not turn up in the next test."""
    app = Flowrun(dsn, lease=600.0)

    @app.handler
    async def work() -> None:
        await asyncio.sleep(600)

    async with app, app.worker(concurrency=1, grace=0.0):
        await work.dispatch()
        await databases.renew(dsn)
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 0
        await connection.close()
