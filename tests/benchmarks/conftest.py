"""One database for the runs of a test, one after the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import servers
from flowrun.testing import databases


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """A scenario in which jobs fail silences a logger, which the tests that follow here listen to."""
    logger = logging.getLogger("flowrun.job")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def renewed_database(flowrun_postgres_server: tuple[str, str], flowrun_postgres_database: str, monkeypatch) -> None:
    """Runs use this process's test database, made as new: creating one for each would be most of the time."""
    server, template = flowrun_postgres_server
    taken = []

    @asynccontextmanager
    async def renewed(_: str) -> AsyncIterator[str]:
        if taken:
            database = await databases.create(server, template)
            yield database
            await databases.drop(server, database)
            return
        taken.append(flowrun_postgres_database)
        await databases.renew(flowrun_postgres_database)
        try:
            yield flowrun_postgres_database
        finally:
            taken.clear()

    monkeypatch.setattr(servers, "fresh_database", renewed)
