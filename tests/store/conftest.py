"""Fixtures for the store's tests.

Making a database costs more than most of these tests (0.2 s idle, seconds where the disk is shared), so they share one
and empty it first. A module that changes more than rows says ``FRESH = True`` and gets a database a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from flowrun.store.statement import Statements
from flowrun.testing import databases

_EMPTY = """
select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid();
delete from flowrun.attempts; delete from flowrun.blocked; delete from flowrun.edges; delete from flowrun.finished;
delete from flowrun.flows; delete from flowrun.jobs; delete from flowrun.leases; delete from flowrun.ready;
delete from flowrun.progress; delete from flowrun.scheduled; delete from flowrun.steps; delete from flowrun.workers;
delete from flowrun.audit; delete from flowrun.cancels; delete from flowrun.deadlines; delete from flowrun.gates;
delete from flowrun.keys; delete from flowrun.signals; delete from flowrun.schedules
"""


@pytest.fixture
def sql() -> Statements:
    return Statements()


@pytest.fixture(scope="session")
def shared_database(flowrun_postgres_server: tuple[str, str]) -> Iterator[str]:
    """One database for all tests of this process that only write rows."""
    server, template = flowrun_postgres_server
    dsn = asyncio.run(databases.create(server, template))
    yield dsn
    asyncio.run(databases.drop(server, dsn))


@pytest.fixture
def dsn(request: pytest.FixtureRequest) -> str:
    """A migrated database without a row in it."""
    if getattr(request.module, "FRESH", False):
        return request.getfixturevalue("flowrun_postgres")
    shared: str = request.getfixturevalue("shared_database")
    asyncio.run(_empty(shared))
    return shared


async def _empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_EMPTY)
    finally:
        await connection.close()
