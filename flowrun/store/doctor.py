"""Looking at a server as a doctor does: what it is, what it lets this role do, and what stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from secrets import token_hex
from time import time
from typing import Any, TypeVar

import asyncpg

from flowrun.errors import DatabaseError
from flowrun.store.address import said
from flowrun.store.pool import LOST, REPEATABLE, Connection, Database, translated

T = TypeVar("T")

_CAREFUL = {"lock_timeout": "1s", "statement_timeout": "10s", "application_name": "flowrun doctor"}
"""A doctor waits for nobody for long."""


@asynccontextmanager
async def opened(database: Database, dsn: str | None = None) -> AsyncIterator[Connection]:
    """A connection to look through. Raises DatabaseUnavailable."""
    with translated(dsn or database.dsn, database.schema):
        connection = await database.connect(_CAREFUL, dsn=dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def look(connection: Connection, database: Database, name: str, *args: object) -> list[dict[str, Any]]:
    """The rows of one of the doctor's statements. Raises DatabaseError, which says why nothing could be seen."""
    return [dict(row) for row in await guarded(connection.fetch(database.sql[name], *args, timeout=15.0))]


async def guarded(looking: Awaitable[T]) -> T:
    """What ``looking`` sees. Raises DatabaseError, which says why nothing could be seen."""
    try:
        return await looking
    except (*LOST, *REPEATABLE, asyncpg.PostgresError) as error:
        raise DatabaseError(said(error)) from error


async def is_pooled(connection: Connection) -> bool:
    """Whether something stands between: the process that greeted is not the one that answers."""
    greeted: int = connection.get_server_pid()
    answered: int = await connection.fetchval("select pg_backend_pid()")
    return greeted != answered


async def skew(connection: Connection) -> float:
    """How many seconds this machine's clock is ahead of the server's, the way there and back halved."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time()
        theirs: float = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
        after = time()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) / 2 - theirs)
    return 0.0 if best is None else best[1]


async def hears(listener: Connection, speaker: Connection, timeout: float) -> bool:
    """Whether ``listener`` is told within ``timeout`` seconds what ``speaker`` says."""
    heard = asyncio.Event()
    channel = f"flowrun_doctor_{token_hex(8)}"
    await listener.add_listener(channel, lambda *_: heard.set())
    await speaker.execute("select pg_notify($1, '')", channel)
    try:
        await asyncio.wait_for(heard.wait(), timeout)
    except TimeoutError:
        return False
    return True
