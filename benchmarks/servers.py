"""The PostgreSQL that is measured on, and a fresh database on it for every run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from flowrun.embedded import EmbeddedPostgres

T = TypeVar("T")

SETTINGS = {"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}


@contextmanager
def server(dsn: str | None) -> Iterator[str]:
    """``dsn``, or an embedded PostgreSQL that waits for the disk, as one in production does.

    It listens on a free TCP port of this machine besides, for those who cannot do without.
    """
    if dsn is not None:
        yield dsn
        return
    directory = Path(tempfile.gettempdir()) / "flowrun-benchmarks"
    with EmbeddedPostgres(directory, port=free_port(), settings=SETTINGS) as postgres:
        if postgres.dsn is None:
            raise RuntimeError("the embedded PostgreSQL has no address")
        yield postgres.dsn


def over_tcp(dsn: str) -> str:
    """The same database by TCP, when ``dsn`` leads to a unix socket."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    if "host" not in query:
        return dsn
    address = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{query['port'][0]}"
    return urlunsplit(parts._replace(netloc=address, query=""))


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[str]:
    """The DSN of an empty database, dropped afterwards."""
    name = f"flowrun_bench_{uuid4().hex[:12]}"
    await _execute(dsn, f'create database "{name}"')
    try:
        yield urlunsplit(urlsplit(dsn)._replace(path="/" + quote(name)))
    finally:
        await _execute(dsn, f'drop database if exists "{name}" with (force)')


async def machine(dsn: str) -> dict[str, Any]:
    """Where figures come from; no names, no paths."""
    connection = await asyncpg.connect(dsn)
    try:
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size")
        settings = {name: await connection.fetchval("select current_setting($1)", name) for name in names}
    finally:
        await connection.close()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "loop": "uvloop" if has_uvloop() else "asyncio",
        **settings,
    }


def has_uvloop() -> bool:
    """Whether uvloop is installed; both sides use it then."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401

        return True
    return False


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in an event loop of its own: uvloop's if it is installed."""
    factory = None
    if has_uvloop():
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def terminated() -> None:
    """Wait for SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


async def tidy(dsn: str, *, analyze: bool, vacuum: bool = False) -> None:
    """What stands between preparing and measuring: statistics if asked for, and no checkpoint that is just due."""
    if vacuum:
        await _execute(dsn, "vacuum analyze" if analyze else "vacuum")
    elif analyze:
        await _execute(dsn, "analyze")
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await _execute(dsn, "checkpoint")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
