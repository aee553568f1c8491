"""The event loop, watched from another thread: a handler that blocks it is named while it does so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flowrun.core.attempt import Claimed
from flowrun.logs import Log
from flowrun.worker import stacks
from flowrun.worker.session import Session, Trouble

logger = Log("flowrun.worker")

TICK = 0.5
"""Seconds between two questions to the loop."""
REPORT = 2.0
"""Seconds without an answer after which the loop is said to be blocked; said again each time it has lasted twice as
long."""


class LoopWatch:
    """Asks the worker's loop for a sign of life, from the heartbeat's thread.

    Counts its own ticks, not the clock: a machine that was suspended, or a process that was stopped, blocked nothing.
    """

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop
        self._thread = threading.get_ident()
        self._asked = 0
        self._answered = 0
        self._silent = 0
        """Ticks since the last answer."""
        self._next_report = REPORT
        self.seconds = 0.0
        """How long the loop has not answered."""

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until ``stop``. Runs in another loop, of another thread."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), TICK)
            except TimeoutError:
                try:
                    self._tick()
                except Exception:
                    logger.exception("the event loop could not be looked at")

    def trouble(self) -> list[Trouble]:
        """That it is blocked, if it is."""
        if self.seconds < REPORT:
            return []
        job = self._running()
        since = datetime.now(UTC) - timedelta(seconds=self.seconds)
        return [Trouble("loop", None if job is None else job.type, None if job is None else job.id, since)]

    def _tick(self) -> None:
        if self._answered == self._asked:
            if self._next_report > REPORT:
                logger.warning("the event loop runs again; it was blocked for %.1f s", self.seconds)
            self._silent, self.seconds, self._next_report = 0, 0.0, REPORT
            self._asked += 1
            self._tell(self._answer)
            return
        self._silent += 1
        self.seconds = self._silent * TICK
        if self.seconds >= self._next_report:
            self._next_report *= 2
            self._report()

    def _answer(self) -> None:
        self._answered += 1

    def _tell(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return  # the loop is closed

    def _report(self) -> None:
        job = self._running()
        stack = stacks.of_thread(self._thread)
        if job is None:
            logger.error(
                "the event loop has been blocked for %.1f s, by no handler's own task:\n%s", self.seconds, stack
            )
            return
        logger.error(
            "job %s (%s): its handler has blocked the event loop for %.1f s; nothing else of this worker runs. What "
            "computes for long belongs into a plain def, or process=True. It is at:\n%s",
            job.id, job.type, self.seconds, stack,
        )  # fmt: skip

    def _running(self) -> Claimed | None:
        """The job whose task the loop is in."""
        task = asyncio.current_task(self._loop)
        return next((slot.job for slot in self._session.slots if slot.task is task), None) if task is not None else None
