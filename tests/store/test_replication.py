"""Logical replication and change capture: each table says which row was changed."""

from __future__ import annotations

import asyncpg

from flowrun.store.statement import Statements
from tests.store.stage import Worker, job_row, put


async def test_every_table_has_a_primary_key(connection: asyncpg.Connection) -> None:
    without = await connection.fetch(
        "select relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where nspname = 'flowrun' and relkind in ('r', 'p')"
        " and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)"
    )
    assert [row[0] for row in without] == []


async def test_jobs_under_a_rate_are_claimed_where_all_tables_are_published(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    """`starts` forgets what is older than the rate: a delete that PostgreSQL refuses without a key."""
    await connection.execute("create publication everything for all tables")
    for table in await connection.fetch("select tablename::text from pg_tables where schemaname = 'flowrun'"):
        await connection.execute(f"delete from flowrun.{table[0]} where false")
        columns = await connection.fetch(
            "select attname::text from pg_attribute where attrelid = ('flowrun.' || $1)::regclass"
            " and attnum > 0 and attidentity = '' and not attisdropped limit 1",
            table[0],
        )
        await connection.execute(f'update flowrun.{table[0]} set "{columns[0][0]}" = "{columns[0][0]}" where false')
    (_,) = await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    assert await worker.claim()
    await connection.execute("insert into flowrun.starts (queue, started_at, jobs) values ('q', now(), 1)")
    await connection.execute("update flowrun.starts set jobs = 2")
    await connection.execute("delete from flowrun.starts")
