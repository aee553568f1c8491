"""Fresh databases for tests: one server for all processes of a run, a template, a copy for each test."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from flowrun.embedded import EmbeddedPostgres
from flowrun.store import migrate

_LOCK = 0x74656D706C617465
_OTHERS = """
    select pg_terminate_backend(pid) from pg_stat_activity
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
_SETTINGS = {"max_connections": "400"}


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

    Ten times as fast as creating another one.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_OTHERS)
        await connection.execute(_EMPTY)
        await migrate.migrate(connection, schema)
    finally:
        await connection.close()


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
