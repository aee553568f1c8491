"""The database a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowrun.cli import terminal
from flowrun.dsn import check_dsn
from flowrun.embedded import EmbeddedPostgres, default_directory, directory_from_dsn


@contextmanager
def opened(dsn: str | None) -> Iterator[str]:
    """The address of the database ``dsn`` names; of the embedded one if None, which then runs meanwhile."""
    directory = directory_from_dsn(check_dsn(dsn)) if dsn else default_directory()
    if directory is None:
        yield str(dsn)
        return
    terminal.say(f"Starting the embedded PostgreSQL in {directory} (--dsn or FLOWRUN_DSN for your own)")
    with EmbeddedPostgres(directory) as server:
        yield str(server.dsn)
