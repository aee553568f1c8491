"""Waking others: notifications, sent together after the commits they are about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import anyio
from anyio.abc import TaskStatus

from flowrun.client.troubles import Troubles
from flowrun.core.lanes import is_lane, queue_of
from flowrun.store.listen import Channels
from flowrun.store.pool import Database

_WAKING = "wake other processes, which find the work by polling"

IDS_PER_PAYLOAD = 100
"""A notification holds less than 8,000 bytes; an id takes 37."""

QUIET = 0.01
"""Seconds without a notification of this process after which one may ride in the commit it is about. It holds a lock of
the whole database until that commit is durable: many a second would queue for it (see wake.sql)."""


def wakes(channels: Channels, queues: Iterable[str], *, scheduled: bool) -> list[tuple[str, str]]:
    """Channel and payload of what says: something is ready in ``queues``; something is due later."""
    messages = [(channels.queue(queue_of(place)), "lane" if is_lane(place) else "") for place in queues]
    return [*messages, (channels.control, "timer")] if scheduled else messages


class Notifier:
    """Sends notifications in its own small transactions, one at a time: all that came meanwhile goes in the next.

    A wake that is lost (the connection breaks) costs time, never a job: everybody also polls, slowly.
    """

    def __init__(self, database: Database, channels: Channels) -> None:
        self._database = database
        self._channels = channels
        self._pending: dict[tuple[str, str], None] = {}
        self._ids: dict[tuple[str, str], list[UUID]] = {}
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sent_at = 0.0
        self.troubles = Troubles()
        """What the database keeps this process's own loops from, but for those of workers."""
        self.local: list[Callable[[Iterable[str], bool], None]] = []
        """Workers in this process, told at once: (queues, whether something new is scheduled)."""
        self.hasten: list[Callable[[float], int]] = []
        """Workers in this process, told when a test moves time on by so many seconds; how many handlers run there."""

    def ride(self, queues: Iterable[str], *, scheduled: bool = False) -> list[tuple[str, str]]:
        """What to say in the commit that makes something ready, where that is wise; else nothing.

        It saves who is idle a round trip, and who dispatches much nothing.
        """
        now = time.monotonic()
        if self._pending or now < self._sent_at + QUIET:
            return []
        self._sent_at = now
        return wakes(self._channels, queues, scheduled=scheduled)

    def wake(self, queues: Iterable[str], *, scheduled: bool = False, told: bool = False) -> None:
        """Something is ready in ``queues``; something is due later. ``told``: other processes know."""
        for tell in self.local:
            tell(queues, scheduled)
        if told:
            return
        self._pending.update(dict.fromkeys(wakes(self._channels, queues, scheduled=scheduled)))
        if self._pending:
            self._send()

    def awaited(self, ids: Iterable[UUID]) -> None:
        """Somebody here waits for ``ids`` to end."""
        self._ids.setdefault((self._channels.control, "await "), []).extend(ids)
        self._send()

    def done(self, ids: Iterable[UUID]) -> None:
        """Jobs have ended for which somebody waits."""
        self._ids.setdefault((self._channels.done, ""), []).extend(ids)
        self._send()

    def interrupt(self, ids: Iterable[UUID]) -> None:
        """Running jobs were asked to stop: whoever runs them shall tell their handlers."""
        self._ids.setdefault((self._channels.control, "cancel "), []).extend(ids)
        self._send()

    def queues_changed(self) -> None:
        """What is known of queues was changed: workers shall look."""
        self._pending[self._channels.control, "queues"] = None
        self._send()

    def schedules_changed(self) -> None:
        """A schedule was written or let go on: its next tick may be the earliest."""
        self._pending[self._channels.control, "schedules"] = None
        self._send()

    def limit_met(self, worker: UUID) -> None:
        """A worker met a limit that is used up: the others shall not keep all slots among themselves."""
        self._pending[self._channels.control, f"limit {worker}"] = None
        self._send()

    def slots_given(self, worker: UUID) -> None:
        """A worker gave back slots because others wait for them."""
        self._pending[self._channels.control, f"slots {worker}"] = None
        self._send()

    def greet(self, worker: UUID) -> None:
        """A worker looks whether it hears anything: what only itself understands."""
        self._pending[self._channels.control, f"hello {worker}"] = None
        self._send()

    async def flush(self, timeout: float = 2.0) -> None:
        """Wait until all is sent, at most ``timeout`` seconds: a process that dispatches and leaves still wakes."""
        with anyio.move_on_after(timeout):
            await self._idle.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""
        connection: Any = None
        task_status.started()
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._database.connect({"synchronous_commit": "off"})
                    while messages := self._take():
                        self._sent_at = time.monotonic()
                        columns = [list(column) for column in zip(*messages, strict=True)]
                        await connection.execute(self._database.sql["wake"], *columns, timeout=10.0)
                    self.troubles.over(_WAKING)
                except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and nobody else would send
                    if connection is not None:
                        connection.terminate()
                    connection = None
                    await anyio.sleep(self.troubles.met(_WAKING, error))
                if not self._wanted.is_set():
                    self._idle.set()
        finally:
            if connection is not None:
                connection.terminate()

    def _send(self) -> None:
        self._idle.clear()
        self._wanted.set()

    def _take(self) -> list[tuple[str, str]]:
        pending, self._pending = list(self._pending), {}
        ids, self._ids = self._ids, {}
        for (channel, word), many in ids.items():
            parts = (many[at : at + IDS_PER_PAYLOAD] for at in range(0, len(many), IDS_PER_PAYLOAD))
            pending.extend((channel, word + ",".join(map(str, part))) for part in parts)
        return pending
