"""Fixtures for all tests. The PostgreSQL is real: see flowrun.testing.plugin."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

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
