"""SIGTERM and SIGINT: the first asks, the second hurries, the third kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from flowrun.guarded import culprit
from flowrun.logs import Log

logger = Log("flowrun.serve")

THREADS = 2.0
"""Seconds that threads, and handlers that ignore their cancellation, have to end after the work is done."""

_KILLS = {"kill", "killpg", "raise_signal", "pthread_kill"}
"""What code calls that sends its own process a signal. Python handles it before the next instruction of that code."""

Ask = Callable[[int], None]
"""What is to be told to stop, with how many times it has been told."""


class Stopping:
    """Counts the signals of a process and passes them on, in its event loop, to what can stop.

    Made before the app is imported: until there is something to stop, a signal ends the process with exit code 0.
    Python's own handlers are used, not the loop's, which would be gone while the loop closes.
    """

    def __init__(self, *, third_kills: bool) -> None:
        self.cancelled = False
        """Asked before there was anything to stop: the task was cancelled instead."""
        self._third_kills = third_kills
        self._signals = 0
        self._times = 0
        self._ask: Ask | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """From here on signals reach the running loop; the current task is cancelled by one that nobody attends to."""
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._ask = self._task = None

    def attend(self, ask: Ask) -> None:
        """Let ``ask`` hear of every signal, of earlier ones too."""
        self._ask = ask
        for times in range(1, self._times + 1):
            ask(times)

    def begin(self, why: str) -> None:
        """Stop as by a first signal, unless there was one."""
        if not self._times:
            self._hear(why)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None:
            sys.exit(0)
        self._signals += 1
        job = culprit()
        if job is not None and frame is not None and not _KILLS.isdisjoint(frame.f_code.co_names):
            logger.warning("job %s (%s) sent %s to its own worker", job.id, job.type, signal.Signals(number).name)
            job.swept = True
        if self._signals >= 3 and self._third_kills:
            os._exit(128 + number)  # the loop may be blocked: it is not asked
        try:
            self._loop.call_soon_threadsafe(self._hear, signal.Signals(number).name)
        except RuntimeError:
            return  # the loop is closed: the process is about to end

    def _hear(self, why: str) -> None:
        self._times += 1
        if self._ask is not None:
            logger.info("%s: %s", why, "stopping" if self._times == 1 else "giving back what still runs")
            self._ask(self._times)
        elif self._task is not None:
            self.cancelled = True
            self._task.cancel()


def leave() -> None:
    """End the process soon, whatever still runs: handlers whose jobs were given back and that nothing can stop."""
    timer = threading.Timer(THREADS, _end, [asyncio.get_running_loop()])
    timer.daemon = True
    timer.start()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    left = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    tasks = [] if loop.is_closed() else asyncio.all_tasks(loop)
    if left or tasks:
        logger.warning("%d thread(s) and %d task(s) did not end; the process does", len(left), len(tasks))
        os._exit(0)
