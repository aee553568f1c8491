"""Waiting for jobs and flows to end: one listener for all who wait in this process, and a slow poll behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import anyio
from anyio.abc import TaskStatus

from flowrun.client.notify import Notifier
from flowrun.errors import ConfigurationError, NotFound
from flowrun.guarded import sheltered
from flowrun.store import listen, reads
from flowrun.store.listen import Channels
from flowrun.store.pool import Database, Forbidden
from flowrun.store.reads import OutcomeRow

_LOOKING = "look up what is waited for"
_LISTENING = "listen for what is waited for, which is polled for meanwhile"

SOON = 0.05
"""Seconds after which a new wait is looked up again: its announcement may have crossed the job's end."""
SLOW = 1.0
"""Seconds between polls while somebody waits: what a lost notification costs at most."""
ROUND_TRIP = 10.0
"""Seconds between questions to the server whether it still hears: what a dead listening link costs in latency."""


PAUSE = 0.005
"""Seconds until the next look after one that has found nothing, whatever is heard."""
STORED = 5.0
"""Seconds between looks whether what is waited for is stored at all."""
UNSEEN = 60.0
"""Seconds for which something may be missing that was never seen: its transaction may not be at its end."""


class Waits:
    """Who waits for what. Results are read from the database, never from a notification."""

    def __init__(self, database: Database, channels: Channels, notifier: Notifier, listen_dsn: str | None) -> None:
        self._database = database
        self._channels = channels
        self._notifier = notifier
        self._listen_dsn = listen_dsn
        self._futures: dict[UUID, list[asyncio.Future[OutcomeRow]]] = {}
        self._look_up: set[UUID] = set()
        self._check = asyncio.Event()
        self._used = asyncio.Event()
        self._check_all_at = 0.0
        self._look_stored_at = 0.0
        self._seen: set[UUID] = set()
        self._missing: dict[UUID, float] = {}
        """What is waited for and not stored, and since when."""

    async def wait(self, id: UUID, timeout: float | None) -> OutcomeRow:
        """How the job or flow ``id`` ended. Raises TimeoutError after ``timeout`` seconds; the job goes on.

        Raises NotFound if it is not stored any more: it was pruned or deleted.
        """
        self._database.here()
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if timeout is not None and (not number or not timeout >= 0):
            raise ConfigurationError(f"timeout= must be a number of seconds, 0 or more, or None; got {timeout!r}")
        if not self._futures:
            self._look_stored_at = asyncio.get_running_loop().time() + STORED
        future: asyncio.Future[OutcomeRow] = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(id, [])
        waiting.append(future)
        self._used.set()
        self._notifier.awaited([id])
        self._look_up.add(id)
        self._poll_within(SOON)
        self._check.set()
        try:
            with anyio.fail_after(timeout):
                return await future
        except TimeoutError:
            raise TimeoutError(f"{id} has not ended within {timeout} s (it goes on)") from None
        finally:
            waiting.remove(future)
            if not waiting:
                self._futures.pop(id, None)
                self._missing.pop(id, None)
                self._seen.discard(id)

    def settled(self, ids: Iterable[UUID]) -> None:
        """Jobs have ended: in this process, or by a notification."""
        mine = [id for id in ids if id in self._futures] if self._futures else ()
        if mine:
            self._look_up.update(mine)
            self._check.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer those who wait, until cancelled."""
        async with anyio.create_task_group() as group:
            if self._listen_dsn is not None or not self._database.pooler:
                group.start_soon(sheltered, self._listen)
            task_status.started()
            while True:
                await self._answer()

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        if self._futures:
            with anyio.move_on_after(max(0.0, self._check_all_at - loop.time())):
                await self._check.wait()
        else:
            await self._check.wait()
        self._check.clear()
        ids, self._look_up = self._look_up, set()
        if loop.time() >= self._check_all_at:
            ids = set(self._futures)
            self._check_all_at = loop.time() + SLOW
            if ids:
                self._notifier.awaited(ids)
        if ids:
            await self._resolve(list(ids))

    async def _resolve(self, ids: list[UUID]) -> None:
        now = asyncio.get_running_loop().time()
        look = now >= self._look_stored_at
        try:
            rows = await reads.outcomes(self._database, ids)
            if look:
                self._look_stored_at = now + STORED
                self._miss({*self._futures} - {row.id for row in rows}, now, await self._open())
        except Forbidden as error:
            for future in [future for id in ids for future in self._futures.get(id, ())]:
                if not future.done():
                    future.set_exception(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and those who wait have their own time
            await anyio.sleep(self._notifier.troubles.met(_LOOKING, error))
            self._look_up.update(ids)
            self._poll_within(SLOW)
            return
        self._notifier.troubles.over(_LOOKING)
        if not rows:
            # Whoever says that something has ended need not be right: looking is no full-time work.
            await anyio.sleep(PAUSE)
        for row in rows:
            for future in self._futures.get(row.id, ()):
                if not future.done():
                    future.set_result(row)

    async def _open(self) -> set[UUID]:
        """Of what is waited for, what is stored and has not ended."""
        return {row[0] for row in await self._database.fetch("open_runs", list(self._futures))}

    def _miss(self, ids: set[UUID], now: float, stored: set[UUID]) -> None:
        """Give up waiting for what is gone: missing in two looks, for it may have ended between two statements."""
        for id in ids:
            if id in stored:
                self._seen.add(id)
                self._missing.pop(id, None)
            elif now - self._missing.setdefault(id, now) >= (STORED / 2 if id in self._seen else UNSEEN):
                for future in self._futures.get(id, ()):
                    if not future.done():
                        future.set_exception(NotFound(f"no job or flow {id} is stored any more"))

    def _poll_within(self, seconds: float) -> None:
        self._check_all_at = min(self._check_all_at, asyncio.get_running_loop().time() + seconds)
        if not self._check_all_at:
            self._check_all_at = asyncio.get_running_loop().time() + seconds

    def _heard(self, _channel: str, payload: str) -> None:
        self.settled(listen.ids(payload))

    async def _listen(self) -> None:
        """Hold a listening connection from the first wait on; a lost one is noticed by its own round trips."""
        await self._used.wait()
        while True:
            connection: Any = None
            try:
                connection = await self._database.connect(dsn=self._listen_dsn)
                await listen.listen(connection, [self._channels.done], self._heard)
                self._check_all_at = 0.0
                self._check.set()
                self._notifier.troubles.over(_LISTENING)
                while True:
                    await anyio.sleep(ROUND_TRIP)
                    await listen.round_trip(connection, 3.0)
            except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and who waits polls meanwhile
                await anyio.sleep(self._notifier.troubles.met(_LISTENING, error))
            finally:
                if connection is not None:
                    connection.terminate()
