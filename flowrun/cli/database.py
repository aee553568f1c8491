"""The database a command works with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from flowrun.cli import terminal
from flowrun.dsn import check_dsn
from flowrun.embedded import EmbeddedPostgres, default_database, default_directory, directory_from_dsn
from flowrun.store.address import with_database


@contextmanager
def opened(dsn: str | None, *, database: str | None = None) -> Iterator[str]:
    """The address of the database ``dsn`` names; of the embedded one if None, which then runs meanwhile.

    ``database`` is the embedded one's name, where it is not the project's.
    """
    directory = directory_from_dsn(check_dsn(dsn)) if dsn else default_directory()
    if directory is None:
        yield str(dsn)
        return
    name = database or default_database()
    terminal.say(
        f"Starting the embedded PostgreSQL in {directory}, database {name} (--dsn or FLOWRUN_DSN for your own)"
    )
    with EmbeddedPostgres(directory) as server:
        yield asyncio.run(with_database(str(server.dsn), name))
