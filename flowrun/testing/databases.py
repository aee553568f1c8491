"""Fresh databases for tests: one server for all processes of a run, a template, a copy for each test."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from flowrun.embedded import EmbeddedPostgres
from flowrun.store import migrate

_LOCK = 0x74656D706C617465
_OTHERS = """
    select pg_terminate_backend(pid, 10000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
_EMPTY = """
    do $$
    declare name text;
    begin
        for name in select nspname from pg_namespace where nspname not like 'pg\\_%' and nspname <> 'information_schema'
        loop
            execute format('drop schema %I cascade', name);
        end loop;
        create schema public;
    end $$
"""
_TABLES = "select quote_ident(relname) from pg_class where relnamespace = to_regnamespace($1) and relkind = 'r'"
_SHAPE = """
    select md5(string_agg(line, ',' order by line)) from (
        select concat_ws(' ', 'c', oid, xmin, reltuples) from pg_class where oid >= 16384
        union all select concat_ws(' ', 'a', attrelid, attnum, xmin) from pg_attribute where attrelid >= 16384
        union all select concat_ws(' ', 'n', oid, xmin) from pg_namespace
        union all select concat_ws(' ', 'o', oid, xmin) from pg_constraint where oid >= 16384
        union all select concat_ws(' ', 'p', oid, xmin) from pg_proc where oid >= 16384
        union all select concat_ws(' ', 't', oid, xmin) from pg_trigger
        union all select concat_ws(' ', 's', setdatabase, setrole, xmin) from pg_db_role_setting
    ) as shape (line)
"""
"""Changes with whatever is created, altered, granted or analysed, and not with rows."""
_LARGE = """
    select coalesce(sum(pg_relation_size(oid)), 0) > 8000000 from pg_class where relnamespace = to_regnamespace($1)
"""
_SETTINGS = {"max_connections": "400"}


@dataclass(frozen=True, slots=True)
class _New:
    """What a database was like when it was new."""

    shape: str
    filled: dict[str, list[tuple[object, ...]]]
    """The tables that are not empty then, with their rows."""
    empty: list[str]


_news: dict[str, _New] = {}
"""By DSN, of databases that this process has made new."""


@contextmanager
def server(run_id: str | None) -> Iterator[str]:
    """The DSN of a PostgreSQL for this run: ``FLOWRUN_TEST_DSN``, else an embedded one that forgets everything.

    Processes that give the same ``run_id`` share it.
    """
    if given := os.environ.get("FLOWRUN_TEST_DSN"):
        yield given
        return
    directory = Path(tempfile.gettempdir()) / f"flowrun-test-{run_id}" if run_id else None
    with EmbeddedPostgres(directory, ephemeral=True, settings=_SETTINGS) as postgres:
        if postgres.dsn is None:
            raise RuntimeError("the embedded PostgreSQL has no address")
        yield postgres.dsn


async def template(dsn: str, schema: str = "flowrun") -> str:
    """The name of a migrated database to copy; made once for each set of migrations."""
    digest = hashlib.sha256("".join(step.checksum for step in migrate.migrations()).encode()).hexdigest()[:12]
    name = f"flowrun_template_{digest}"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        if not await connection.fetchval("select true from pg_database where datname = $1", name):
            draft = f"{name}_draft"
            await connection.execute(f'drop database if exists "{draft}"')
            await connection.execute(f'create database "{draft}"')
            inside = await asyncpg.connect(with_database(dsn, draft))
            try:
                await migrate.migrate(inside, schema)
            finally:
                await inside.close()
            await connection.execute(f'alter database "{draft}" rename to "{name}"')
    finally:
        await connection.close()
    return name


async def create(dsn: str, template_name: str) -> str:
    """A fresh copy of the template; its DSN."""
    name = f"flowrun_test_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(dsn)
    try:
        copied = ' strategy "file_copy"' if connection.get_server_version() >= (15,) else ""
        await connection.execute(f'create database "{name}" template "{template_name}"{copied}')
    finally:
        await connection.close()
    return with_database(dsn, name)


async def renew(dsn: str, schema: str = "flowrun") -> None:
    """Make a database as new: nobody connected, nothing in it but flowrun's tables.

    Where the tests before left nothing but rows they are deleted, which takes a few milliseconds; otherwise all is
    made again, which is still faster than another database.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_OTHERS)
        new = _news.pop(dsn, None)
        if new is None or not await _emptied(connection, schema, new):
            await connection.execute(_EMPTY)
            await migrate.migrate(connection, schema)
            new = await _look(connection, schema)
        _news[dsn] = new
    finally:
        await connection.close()


async def _look(connection: asyncpg.Connection, schema: str) -> _New:
    filled, empty = {}, []
    for table in await _tables(connection, schema):
        if rows := await _rows(connection, table):
            filled[table] = rows
        else:
            empty.append(table)
    return _New(await _text(connection, _SHAPE), filled, empty)


async def _emptied(connection: asyncpg.Connection, schema: str, new: _New) -> bool:
    """Delete all rows that came; False: something else was changed, or it is so much that the tables stay large."""
    if await connection.fetchval(_SHAPE) != new.shape or await connection.fetchval(_LARGE, schema):
        return False
    for table, rows in new.filled.items():
        if await _rows(connection, table) != rows:
            return False
    await connection.execute(";".join(f"delete from {table}" for table in new.empty))  # noqa: S608 - quoted names
    return True


async def _tables(connection: asyncpg.Connection, schema: str) -> list[str]:
    quoted = await _text(connection, "select quote_ident($1)", schema)
    return [f"{quoted}.{row[0]}" for row in await connection.fetch(_TABLES, schema)]


async def _text(connection: asyncpg.Connection, query: str, *args: object) -> str:
    return str(await connection.fetchval(query, *args))


async def _rows(connection: asyncpg.Connection, table: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(f"select * from {table}")]  # noqa: S608 - quoted


async def drop(dsn: str, database_dsn: str) -> None:
    """Delete a copy, whoever is still connected to it."""
    name = urlsplit(database_dsn).path.lstrip("/")
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
    finally:
        await connection.close()


def with_database(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path="/" + quote(name)))
