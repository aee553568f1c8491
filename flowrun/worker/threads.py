"""Plain functions, run in threads so that the loop stays free."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread

from flowrun.core.attempt import Claimed


class Call:
    """A function on its way through a thread."""

    def __init__(self, call: Callable[[], Any], job: Claimed) -> None:
        self._call = call
        self.job = job
        self.thread: int | None = None
        """Where it runs, once it does."""
        self.ended = False
        self.left_at = 0.0
        """When nobody waited for it any more."""
        self.reported = False

    def __call__(self) -> tuple[Any, BaseException | None]:
        """What it came to. A GeneratorExit that travelled by a future would end all that wait for it."""
        self.thread = threading.get_ident()
        try:
            return self._call(), None
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            return None, error
        finally:
            self.ended = True


class Threads:
    """As many threads as there are consumers, those left behind not counted.

    A thread cannot be interrupted. When its attempt is cancelled it is left behind: it gives its place to the next at
    once, so that no number of them can stop the worker, and it ends when its function does.
    """

    def __init__(self, count: int) -> None:
        self._limiter = anyio.CapacityLimiter(count)
        self._left: list[Call] = []

    async def run(self, call: Callable[[], Any], job: Claimed) -> Any:
        """What ``call``, of ``job``'s handler, returns or raises. A cancellation leaves the thread behind."""
        running = Call(call, job)
        try:
            value, error = await anyio.to_thread.run_sync(running, limiter=self._limiter, abandon_on_cancel=True)
        except BaseException:
            if running.thread is not None and not running.ended:
                running.left_at = monotonic()
                self._left.append(running)
            raise
        if error is not None:
            raise error
        return value

    @property
    def left(self) -> list[Call]:
        """Those that nobody waits for, and that still run."""
        self._left = [call for call in self._left if not call.ended]
        return self._left
