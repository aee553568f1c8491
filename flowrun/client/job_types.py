"""Types of jobs as people see and pause them."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowrun.client.queues import check_timeout, heard
from flowrun.core.options import check_name
from flowrun.store import queues as store
from flowrun.store.queues import Hearing

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.store.pool import Connection


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """A type of jobs as it stands."""

    name: str
    paused: bool
    ready: int
    """Jobs that could run now, were it not paused."""
    workers: int
    """Workers that live and have a handler of it."""


@dataclass(frozen=True, slots=True)
class TypePause:
    """What a pause came to. True, as a condition, if the type was not paused before."""

    changed: bool
    running: int
    """Jobs of the type that had begun before, and go on."""
    unheard: tuple[str, ...]
    """Workers that live and did not answer in time: they may still begin jobs of it."""

    def __bool__(self) -> bool:
        return self.changed


class Types:
    """``app.types``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[TypeStatus]:
        """All types that are paused, have jobs ready, or a handler in a worker that lives, by name.

        for type in await app.types.list():
            print(type.name, type.ready, type.paused)
        """
        database = self._client.database

        async def verb(connection: Connection) -> builtins.list[tuple[str, bool, int, int]]:
            return await store.types(connection, database.sql)

        return [TypeStatus(*row) for row in await database.repeat(verb)]

    async def pause(self, name: str, *, timeout: float | None = None) -> TypePause:
        """When this returns, no job of the type begins any more, in whatever queue; what runs goes on, and is counted.

        It waits until every worker that has a handler of it has said so, which takes milliseconds, or is given up by
        the others, at most ``timeout`` seconds (default: the lease). Whoever has not answered by then is named. Jobs
        that dispatch others of their own type for ever are stopped so: pause, cancel, resume.

            pause = await app.types.pause("import_page")
            await app.jobs.cancel(type="import_page")
        """
        check_timeout(timeout)
        changed = await self._pause(name, paused=True)
        hearing = await self._announce(name)
        database = self._client.database

        async def missing(connection: Connection) -> builtins.list[tuple[str, bool]]:
            return await store.unheard(connection, database.sql, hearing, of_type=True)

        async def running(connection: Connection) -> int:
            return await store.running_of_type(connection, database.sql, name)

        unheard = await heard(database, missing, self._client.settings.lease if timeout is None else timeout)
        return TypePause(changed, await database.repeat(running), tuple(unheard))

    async def resume(self, name: str) -> bool:
        """Let jobs of the type be claimed again. False if it was not paused. Raises ConfigurationError for a bad name.

        await app.types.resume("import_page")
        """
        changed = await self._pause(name, paused=False)
        if changed:
            await self._announce(name)
        return changed

    async def _pause(self, name: str, *, paused: bool) -> bool:
        check_name("type", name)
        database = self._client.database

        async def verb(connection: Connection) -> bool:
            return await store.pause_type(connection, database.sql, name, paused=paused)

        return await database.repeat(verb)

    async def _announce(self, name: str) -> Hearing:
        database = self._client.database

        async def verb(connection: Connection) -> Hearing:
            return await store.announce_type(connection, database.sql, name)

        hearing = await database.repeat(verb)
        self._client.notifier.queues_changed()
        return hearing
