"""Queues as people see and change them: limits, rates, pauses."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from flowrun.core.options import SYSTEM_QUEUE, check_name
from flowrun.errors import ConfigurationError
from flowrun.store import queues as store
from flowrun.store.queues import QueueSetting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowrun.client.dispatch import Client
    from flowrun.store.pool import Connection


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue as it stands."""

    name: str
    concurrency: int | None
    """How many of its jobs may run at once, on all workers together; None: as many as these have consumers."""
    rate: tuple[int, float] | None
    """How many of its jobs may start in any stretch of so many seconds; None: no matter."""
    paused: bool
    ready: int
    """Jobs that could run now."""
    running: int | None
    """Jobs that take up its concurrency; None: it has no limit, and they are not counted."""
    workers: int
    """Workers that serve it."""


class Queues:
    """``app.queues``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> list[QueueStatus]:
        """All queues that are known, served, or have jobs ready, by name.

        for queue in await app.queues.list():
            print(queue.name, queue.ready, queue.paused)
        """
        database = self._client.database

        async def verb(connection: Connection) -> builtins.list[store.QueueRow]:
            return await store.standing(connection, database.sql)

        return [
            QueueStatus(
                row.setting.name,
                row.setting.concurrency,
                row.setting.rate,
                bool(row.setting.paused),
                row.ready,
                row.running if row.setting.concurrency is not None else None,
                row.workers,
            )
            for row in await database.repeat(verb)
        ]

    async def put(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: tuple[int, float] | None = None,
        paused: bool | None = None,
    ) -> bool:
        """Say how many jobs of a queue may run at once, and start in so many seconds; whether that was a change.

        What is not given is unlimited from now on; ``paused=None`` leaves that as it is. Workers look before they claim
        again; what runs already is not counted.

            await app.queues.put("emails", concurrency=10, rate=(100, 60.0))
        """
        return await self._put([check_setting(name, concurrency, rate, paused)])

    async def declare(self, settings: Iterable[QueueSetting]) -> bool:
        """Write what a program says of its queues; ``paused`` only where nothing is known of a queue yet."""
        return await self._put(settings, declared=True)

    async def _put(self, settings: Iterable[QueueSetting], *, declared: bool = False) -> bool:
        database, wanted = self._client.database, builtins.list(settings)

        async def verb(connection: Connection) -> bool:
            return await store.put(connection, database.sql, wanted, declared=declared)

        changed = await database.repeat(verb)
        if changed:
            self._client.notifier.queues_changed()
        return changed

    async def pause(self, name: str) -> bool:
        """No job of the queue is claimed any more; what runs goes on. False if it was paused already.

        await app.queues.pause("emails")
        """
        return await self._pause(name, paused=True)

    async def resume(self, name: str) -> bool:
        """Its jobs are claimed again. False if it was not paused."""
        return await self._pause(name, paused=False)

    async def _pause(self, name: str, *, paused: bool) -> bool:
        _check_name(name)
        database = self._client.database

        async def verb(connection: Connection) -> bool:
            return await store.pause(connection, database.sql, name, paused=paused)

        changed = await database.repeat(verb)
        if changed:
            self._client.notifier.queues_changed()
        return changed


def check_setting(
    name: str, concurrency: int | None, rate: tuple[int, float] | None, paused: bool | None
) -> QueueSetting:
    """What is said of a queue, or ConfigurationError."""
    _check_name(name)
    where = f"queue {name!r}"
    if concurrency is not None and not _whole(concurrency):
        raise ConfigurationError(
            f"{where}: concurrency= must be a whole number from 1 up, or None; got {concurrency!r}"
        )
    if rate is not None:
        jobs, seconds = rate if isinstance(rate, tuple) and len(rate) == 2 else (None, None)
        known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and isfinite(seconds)
        if not _whole(jobs) or not known or not 0 < float(seconds or 0) <= 366 * 86_400:
            raise ConfigurationError(
                f"{where}: rate= must be jobs and seconds, as in (100, 60.0) for 100 in any minute; got {rate!r}"
            )
        rate = (rate[0], float(rate[1]))
    if paused is not None and not isinstance(paused, bool):
        raise ConfigurationError(f"{where}: paused= must be True, False or None; got {paused!r}")
    return QueueSetting(name, concurrency, rate, paused)


def _check_name(name: str) -> None:
    check_name("queue", name)
    if name == SYSTEM_QUEUE:
        raise ConfigurationError(f"the queue {SYSTEM_QUEUE!r} is flowrun's own")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2_000_000_000
