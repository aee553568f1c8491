"""The embedded PostgreSQL of an app: started with it, given a database of its own, and started again should it die."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from flowrun.embedded import EmbeddedPostgres
from flowrun.errors import DatabaseError
from flowrun.logs import Log
from flowrun.store.address import with_database
from flowrun.store.pool import LOST

logger = Log("flowrun.embedded")

LOOK = 0.5
"""Seconds between two looks whether the server lives."""
_LONGEST = 30.0
"""Seconds between two attempts to start it again, at most."""


class Embedded:
    """A server in ``directory``, and the database ``name`` on it."""

    def __init__(self, directory: Path, name: str) -> None:
        self._server = EmbeddedPostgres(directory)
        self._name = name

    async def start(self) -> str:
        """Start the server, or join it; the address of the database, which is made where there is none."""
        return await with_database(await asyncio.to_thread(self._server.start), self._name)

    def close(self) -> None:
        """Give the server up; it stops when nobody uses it."""
        self._server.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start it again whenever it has died, until cancelled: connections are made again by who needs them."""
        task_status.started()
        pause = LOOK
        while True:
            await asyncio.sleep(pause)
            if self._server.alive:
                pause = LOOK
                continue
            logger.warning("the embedded PostgreSQL in %s has died; starting it again", self._server.directory)
            try:
                await self.start()
            except (DatabaseError, *LOST) as error:
                pause = min(2 * pause, _LONGEST)
                logger.error("the embedded PostgreSQL cannot be started again (%s); trying again", error)  # noqa: TRY400
