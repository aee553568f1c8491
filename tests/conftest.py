"""Fixtures for all tests. The PostgreSQL is real: see flowrun.testing.plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
