"""The moment by which a start has to be done; nothing in this package waits without one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE = 0.01


class Deadline:
    """Counts down from ``timeout`` seconds."""

    __slots__ = ("_ends", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._ends = time.monotonic() + timeout

    def left(self) -> float:
        """The seconds left, never below zero."""
        return max(0.0, self._ends - time.monotonic())

    def pause(self, waiting_for: str | Callable[[], str]) -> None:
        """Sleep for a moment; raise when the time is over."""
        if not self.left():
            what = waiting_for if isinstance(waiting_for, str) else waiting_for()
            raise EmbeddedPostgresError(f"waited {self.timeout:g} s for {what}")
        time.sleep(_PAUSE)
