"""Queues as people see and change them: limits, rates, pauses."""

from __future__ import annotations

import builtins
from asyncio import sleep
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING

from flowrun.core.options import SYSTEM_QUEUE, check_name
from flowrun.errors import ConfigurationError
from flowrun.logs import Log
from flowrun.store import queues as store
from flowrun.store.queues import Hearing, QueueSetting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from flowrun.client.dispatch import Client
    from flowrun.store.pool import Connection, Database

logger = Log("flowrun.queues")

SOONEST, SLOWEST = 0.002, 0.1
"""Seconds between two looks whether all workers have heard of a pause: at first, and at last."""


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


@dataclass(frozen=True, slots=True)
class QueuePause:
    """What a pause came to. True, as a condition, if the queue was not paused before."""

    changed: bool
    running: int
    """Jobs of the queue that had begun before, and go on."""
    unheard: tuple[str, ...]
    """Workers that live and did not answer in time: they may still begin jobs that they had claimed before. A handler
    blocks the event loop there, the database is out of reach, or the worker's version is one that does not answer."""

    def __bool__(self) -> bool:
        return self.changed


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
        again; what runs already is not counted. ``paused=True`` waits as :meth:`pause` does.

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
            hearing = await self._announce([one.name for one in wanted])
            if any(one.paused for one in wanted):
                unheard = await self._heard(hearing, self._client.settings.lease)
                if unheard:
                    logger.warning("workers may not have heard of a pause yet: %s", ", ".join(unheard))
        return changed

    async def pause(self, name: str, *, timeout: float | None = None) -> QueuePause:
        """When this returns, no job of the queue begins any more; what runs goes on, and is counted.

        It waits until every worker that serves the queue has said so, which takes milliseconds, or is given up by the
        others, at most ``timeout`` seconds (default: the lease). Whoever has not answered by then is named.

            pause = await app.queues.pause("emails")
            print(pause.running, "still run;", pause.unheard or "no more will begin")
        """
        check_timeout(timeout)
        changed = await self._pause(name, paused=True)
        hearing = await self._announce([name])
        unheard = await self._heard(hearing, self._client.settings.lease if timeout is None else timeout)
        database = self._client.database

        async def running(connection: Connection) -> int:
            return await store.running(connection, database.sql, name)

        return QueuePause(changed, await database.repeat(running), tuple(unheard))

    async def resume(self, name: str) -> bool:
        """Its jobs are claimed again. False if it was not paused."""
        changed = await self._pause(name, paused=False)
        if changed:
            await self._announce([name])
        return changed

    async def _pause(self, name: str, *, paused: bool) -> bool:
        _check_name(name)
        database = self._client.database

        async def verb(connection: Connection) -> bool:
            return await store.pause(connection, database.sql, name, paused=paused)

        return await database.repeat(verb)

    async def _announce(self, names: builtins.list[str]) -> Hearing:
        """Have the workers look at queues that were changed, and committed; those who serve them."""
        database = self._client.database

        async def verb(connection: Connection) -> Hearing:
            return await store.announce(connection, database.sql, names)

        hearing = await database.repeat(verb)
        self._client.notifier.queues_changed()
        return hearing

    async def _heard(self, hearing: Hearing, timeout: float) -> builtins.list[str]:
        """Wait until all have heard, who live and would say so; the names of those who have not."""
        database = self._client.database

        async def verb(connection: Connection) -> builtins.list[tuple[str, bool]]:
            return await store.unheard(connection, database.sql, hearing)

        return await heard(database, verb, timeout)


async def heard(
    database: Database, unheard: Callable[[Connection], Awaitable[list[tuple[str, bool]]]], timeout: float
) -> list[str]:
    """Wait until all have heard of a pause, who live and would say so; the names of those who have not."""
    until, pause = monotonic() + timeout, SOONEST
    while True:
        left = await database.repeat(unheard)
        if not any(says for _, says in left) or monotonic() + pause > until:
            return [name for name, _ in left]
        await sleep(pause)
        pause = min(pause * 2, SLOWEST)


def check_timeout(timeout: object) -> None:
    """Raise ConfigurationError unless ``timeout`` is None or a number of seconds."""
    if timeout is not None and not _is_time(timeout):
        raise ConfigurationError(f"timeout= must be seconds, 0 or more; got {timeout!r}")


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
        if not _whole(jobs) or not _is_time(seconds) or not 0 < float(seconds or 0) <= 366 * 86_400:
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


def _is_time(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and isfinite(value) and value >= 0  # type: ignore[arg-type,operator] # a number


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2_000_000_000
