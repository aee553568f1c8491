"""The pulse of a worker: heartbeats and what it is told, on a thread of their own.

A handler that blocks the event loop must not cost the worker its leases. And a connection that listens must always be
read: a server process that cannot deliver keeps its snapshot, and the whole database bloats. So the claimers, which
listen for their queues in the worker's loop, lose their connections when that is blocked for long.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import anyio

from flowrun import codec
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.logs import Log
from flowrun.store import listen, upkeep
from flowrun.store.upkeep import Beat
from flowrun.worker.blocked import LoopWatch
from flowrun.worker.heard import Heard
from flowrun.worker.session import Session

logger = Log("flowrun.worker")

_BEATING = "send heartbeats"
_LEARNING = "learn what there is to know with a heartbeat"
RETRY = 0.5
"""Seconds between attempts to connect."""
UNREAD = 5.0
"""Seconds that claimers may listen and not read."""
PAUSE = 0.005
"""Seconds between two looks for jobs that were asked to stop, however often that is said."""
ECHO = 1.0
"""Seconds in which a worker hears what it said to itself. It tries twice before it says that it is deaf."""


class Heartbeat:
    """A thread with its own event loop and one connection. What it hears is handed to the worker's loop."""

    def __init__(self, session: Session, on_beat: Callable[[Beat], None]) -> None:
        self._session = session
        self._on_beat = on_beat
        self._loop = asyncio.get_running_loop()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._listening = asyncio.Event()
        self._beating = asyncio.Event()
        self._echo = asyncio.Event()
        self._news = asyncio.Event()
        """There is something to tell others before the next heartbeat."""
        self._asked = False
        """A job that runs somewhere was asked to stop."""
        self._heard_of = Heard(session, self._loop)
        self._channels: dict[str, str] = {}
        """By channel: the queue of which it tells."""
        settings = session.client.settings
        self._listens = settings.listen_dsn is not None or not settings.pooler
        self._watch = LoopWatch(session, self._loop)
        self._complained: str | None = None
        """What troubles the worker, as others know it."""
        self._thread = threading.Thread(target=self._main, name="flowrun-heartbeat", daemon=True)

    async def run(self) -> None:
        """Beat until cancelled."""
        self._thread.start()
        try:
            if self._listens:
                await self._hear_oneself()
            await asyncio.get_running_loop().create_future()
        finally:
            self._end()

    async def _hear_oneself(self) -> None:
        """Say something, once, and hear it: through a pooler in transaction mode LISTEN succeeds, and nothing comes.

        Said over another connection, and after the first heartbeat: while a statement runs, even a pooler passes on
        what comes.
        """
        session = self._session
        await self._beating.wait()
        for _ in range(2):
            session.client.notifier.greet(session.id)
            await session.client.notifier.flush(ECHO)
            with anyio.move_on_after(ECHO):
                await self._echo.wait()
            if self._echo.is_set():
                return
        logger.warning(
            "worker %s: LISTEN was accepted, but what the worker said to itself did not arrive (is there a pooler in "
            "transaction mode in between?): it polls every %.1f s; give Flowrun(listen_dsn=...) an address that leads "
            "straight to PostgreSQL", session.name, session.client.settings.poll,
        )  # fmt: skip
        await self._echo.wait()
        logger.info("worker %s hears notifications after all", session.name)

    async def listening(self) -> None:
        """Return once notifications are heard (at once where none can be)."""
        if self._listens:
            await self._listening.wait()

    def _end(self) -> None:
        if self._own_loop is not None and self._stop is not None:
            try:
                self._own_loop.call_soon_threadsafe(self._stop.set)
                self._own_loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:
                return
        self._thread.join(timeout=5.0)

    def _stir(self) -> None:
        """What troubles the worker has changed. From any thread."""
        if self._own_loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._own_loop.call_soon_threadsafe(self._news.set)

    def _main(self) -> None:
        asyncio.run(self._pulse())

    async def _pulse(self) -> None:
        self._own_loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._news.clear()
        self._session.troubles.changed = self._stir
        if not self._listens:
            logger.warning(
                "a pooler without listen_dsn: this worker hears no notifications and polls every %.1f s",
                self._session.client.settings.poll,
            )
        await asyncio.gather(self._watch.run(self._stop), self._beat_on(self._stop))

    async def _beat_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            connection: Any = None
            try:
                connection = await self._connect()
                await self._beat(connection, stop)
            except Exception as error:  # noqa: BLE001 - whatever it is: without a pulse the jobs are lost
                await self._wait(stop, min(RETRY, self._session.troubles.met(_BEATING, error)))
            finally:
                if connection is not None:
                    # Never close(): on a dead link it waits for an answer.
                    connection.terminate()

    async def _connect(self) -> Any:
        session = self._session
        client = session.client
        settings = client.settings
        # A table that somebody has locked is left before the lease is over.
        options = {"synchronous_commit": "off", "lock_timeout": f"{settings.lease * 1000 / 6:.0f}ms"}
        connection = await client.database.connect(options, dsn=settings.listen_dsn)
        if self._listens:
            if not session.claimers_listen:
                self._channels = {client.channels.queue(queue): queue for queue in [*session.queues, SYSTEM_QUEUE]}
            await listen.listen(connection, [client.channels.control, *self._channels], self._heard)
            self._tell(self._listening.set)
        # Whatever was announced while nobody listened: look everywhere. Listening comes first, looking second.
        self._tell(session.wake.ring_all)
        return connection

    async def _beat(self, connection: Any, stop: asyncio.Event) -> None:
        session = self._session
        settings = session.client.settings
        beats = 0
        while not stop.is_set():
            await self._hang_up(connection)
            if self._watch.seconds > settings.block_limit:
                logger.error(
                    "worker %s: its event loop has been blocked for %.0f s; it sends no more heartbeats until it runs, "
                    "so others take its jobs after %.0f s", session.name, self._watch.seconds, settings.lease,
                )  # fmt: skip
                while self._watch.seconds and not stop.is_set():
                    await self._wait(stop, RETRY)
                    await self._hang_up(connection)
            beat = await upkeep.beat(
                connection, session.client.database.sql, worker_id=session.id, lease=settings.lease
            )
            if beat is None:
                logger.error("worker %s was given up by the others: its jobs run elsewhere", session.name)
                self._tell(session.lost.set)
                return await self._wait(stop, None)
            beats += 1
            if beat.unknown is None:
                session.troubles.over(_BEATING)
                session.troubles.over(_LEARNING)
            else:
                session.troubles.met(_LEARNING, beat.unknown)
            await self._complain(connection)
            self._tell(self._beating.set)
            if beat.changes != session.changes:
                self._tell(session.stale.set)
            if beat.cancelled:
                self._tell(session.interrupt, beat.cancelled)
            # After an outage every worker's time is up: give the others one beat to come back.
            self._tell(self._on_beat, beat if beats > 1 else beat._replace(others_expired=False))
            await self._rest(connection, stop, settings.heartbeat)
        return None

    async def _rest(self, connection: Any, stop: asyncio.Event, seconds: float) -> None:
        """Until the next heartbeat; what begins to trouble the worker meanwhile is told at once."""
        until = monotonic() + seconds
        while not stop.is_set() and (left := until - monotonic()) > 0:
            await self._wait(self._news, left)
            if self._news.is_set():
                self._news.clear()
                await self._complain(connection)
                await self._interrupt(connection)

    async def _interrupt(self, connection: Any) -> None:
        """Look which of the worker's jobs were asked to stop, if somebody says that one was."""
        if self._asked:
            self._asked = False
            session = self._session
            if asked := await upkeep.asked_to_stop(connection, session.client.database.sql, session.id):
                self._tell(session.interrupt, asked)
            await asyncio.sleep(PAUSE)

    async def _complain(self, connection: Any) -> None:
        """Let others see what troubles the worker, where that has changed."""
        session = self._session
        trouble = [one.stored() for one in (*session.complaints(), *self._watch.trouble())]
        text = codec.dump(trouble) if trouble else None
        if text != self._complained:
            await upkeep.complain(connection, session.client.database.sql, session.id, text)
            self._complained = text

    async def _hang_up(self, connection: Any) -> None:
        """End the claimers' sessions while the loop that should read them is blocked; they connect again."""
        session = self._session
        if self._watch.seconds > UNREAD and session.listeners:
            listeners, session.listeners = session.listeners, set()
            await listen.hang_up(connection, session.client.database.sql, listeners)

    async def _wait(self, stop: asyncio.Event, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            return

    def _heard(self, channel: str, payload: str) -> None:
        session = self._session
        word, _, rest = payload.partition(" ")
        if channel != session.client.channels.control:
            place = listen.place(self._channels[channel], payload)
            self._heard_of.tell(place, session.wake.ring, [place])
        elif word == "queues":
            self._heard_of.tell(word, session.stale.set)
        elif word == "schedules":
            self._heard_of.tell(word, session.wake.tick.set)
        elif word == "timer":
            self._heard_of.tell(word, session.wake.due.set)
        elif word == "hello" and rest == str(session.id):
            self._heard_of.tell(word, self._echo.set)
        elif word == "await":
            self._heard_of.awaited(listen.ids(rest))
        elif word == "limit" and rest != str(session.id):
            self._heard_of.tell(word, session.others_wait, rest)
        elif word == "slots" and rest != str(session.id):
            self._heard_of.tell(word, session.slots_given, rest)
        elif word == "cancel":
            # Which, stands in a table; of the jobs of this worker, if of any.
            self._asked = True
            self._news.set()

    def _tell(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return  # the worker's loop is closed already
