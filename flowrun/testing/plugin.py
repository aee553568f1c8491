"""The pytest plugin: fixture ``flowrun_postgres``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

__all__ = ["flowrun_postgres", "flowrun_postgres_database", "flowrun_postgres_server"]


@pytest.fixture(scope="session")
def flowrun_postgres_server() -> Iterator[tuple[str, str]]:
    """DSN of the server of this test run, and the name of a migrated database on it to copy."""
    from flowrun.testing import databases

    with databases.server(os.environ.get("PYTEST_XDIST_TESTRUNUID")) as dsn:
        yield dsn, asyncio.run(databases.template(dsn))


@pytest.fixture(scope="session")
def flowrun_postgres_database(flowrun_postgres_server: tuple[str, str]) -> Iterator[str]:
    """DSN of the database that this process's tests use one after the other."""
    from flowrun.testing import databases

    server, template = flowrun_postgres_server
    dsn = asyncio.run(databases.create(server, template))
    yield dsn
    asyncio.run(databases.drop(server, dsn))


@pytest.fixture
def flowrun_postgres(flowrun_postgres_database: str) -> str:
    """DSN of a database as new, with flowrun's tables in it and nothing else.

    def test_order(flowrun_postgres):
        app = Flowrun(flowrun_postgres)
    """
    from flowrun.testing import databases

    asyncio.run(databases.renew(flowrun_postgres_database))
    return flowrun_postgres_database
