"""The doorbell of a worker: something may be ready, something may be due."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Wake:
    """Rung by notifications, by dispatches in this process, and by the worker itself. Ringing twice is ringing once."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.queues = frozenset(queues)
        self.ready = asyncio.Event()
        self.due = asyncio.Event()

    def ring(self, queues: Iterable[str], scheduled: bool = False) -> None:
        """Something became ready in ``queues``; something new is scheduled."""
        if not self.queues.isdisjoint(queues):
            self.ready.set()
        if scheduled:
            self.due.set()

    def ring_all(self) -> None:
        """Anything may have happened: look everywhere."""
        self.ready.set()
        self.due.set()
