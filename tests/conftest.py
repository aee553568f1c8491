"""Fixtures for all tests. The PostgreSQL is real: see flowrun.testing.plugin."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from flowrun import Flowrun


@pytest.fixture
def dsn(flowrun_postgres: str) -> str:
    """A fresh, migrated database."""
    return flowrun_postgres


@pytest.fixture
def app(dsn: str) -> Flowrun:
    """An app on a fresh database, not opened."""
    return Flowrun(dsn)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection to the same database."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait until something is true, checking often, failing after a deadline."""

    async def wait(condition: Callable[[], Awaitable[object] | object], seconds: float = 20.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            assert asyncio.get_running_loop().time() < deadline, "the condition did not come true in time"
            await asyncio.sleep(0.01)

    return wait


class DeadlockWatch:
    """A connection to another database of the server, from which it counts deadlocks in those of tests."""

    def __init__(self, server: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(server))

    def count(self, name: str) -> int | None:
        """Deadlocks so far: those of sessions that have ended, and of others up to a second ago."""
        query = "select deadlocks from pg_stat_database where datname = $1"
        return self._loop.run_until_complete(self._connection.fetchval(query, name))

    def alone(self, name: str) -> None:
        """End who is connected still, as before the next test: only who ends reports at once."""
        query = (
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = $1 and backend_type = 'client backend'"
        )
        self._loop.run_until_complete(self._connection.fetch(query, name))

    def check(self, dsn: str, before: int | None = 0) -> None:
        """Fail if the database has had more deadlocks than ``before``."""
        name = unquote(urlsplit(dsn).path.lstrip("/"))
        self.alone(name)
        assert self.count(name) == before, "the server has found a deadlock: see Locks in docs/design.md"

    def close(self) -> None:
        """Close the connection, and the loop it lives on."""
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


@pytest.fixture(scope="session")
def deadlock_watch(flowrun_postgres_server: tuple[str, str]) -> Iterator[DeadlockWatch]:
    """One connection for all tests of this process."""
    watch = DeadlockWatch(flowrun_postgres_server[0])
    yield watch
    watch.close()


@pytest.fixture(autouse=True)
def nobody_deadlocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with a database of its own fails if the server has counted a deadlock in it.

    But for those marked ``deadlocks("why")``. A millisecond or two a test.
    """
    if "dsn" not in request.fixturenames or request.node.get_closest_marker("deadlocks"):
        yield
        return
    dsn: str = request.getfixturevalue("dsn")
    watch: DeadlockWatch = request.getfixturevalue("deadlock_watch")
    name = unquote(urlsplit(dsn).path.lstrip("/"))
    before = watch.count(name)
    yield
    watch.check(dsn, before)
