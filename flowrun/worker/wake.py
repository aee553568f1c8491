"""The doorbells of a worker: something may be ready, something may be due."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from flowrun.core.lanes import is_lane, queue_of


class Bell:
    """One claimer's. Ringing twice is ringing once."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.queues = frozenset(queues)
        self.ready = asyncio.Event()
        self.plain = True
        """Something may be ready where nothing is limited."""
        self.limited = True
        """Something may be ready where limits count: in a lane, or in one of ``limited_queues``."""
        self.lanes = True
        """Something may be ready in a lane."""
        self.news = True
        """Something became ready where limits count, not just free."""
        self.limited_queues: Collection[str] = ()

    def ring(self, places: Iterable[str]) -> None:
        """Something became ready in ``places``: queues, or lanes of them."""
        for place in places:
            if place in self.queues:
                self.ready.set()
                if place in self.limited_queues:
                    self.limited = self.news = True
                else:
                    self.plain = True
            elif is_lane(place) and queue_of(place) in self.queues:
                self.limited = self.lanes = self.news = True
                self.ready.set()

    def ring_all(self) -> None:
        """Anything may have happened."""
        self.plain = self.lanes = self.news = True
        self.ring_limited()

    def ring_limited(self) -> None:
        """A limit may let in what it kept out."""
        self.limited = True
        self.ready.set()


class Wake:
    """All bells of a worker. Rung by notifications, by dispatches in this process, and by the worker itself."""

    def __init__(self) -> None:
        self.bells: list[Bell] = []
        self.due = asyncio.Event()
        self.tick = asyncio.Event()
        """A schedule may have a tick that is due."""

    def ring(self, places: Iterable[str], scheduled: bool = False) -> None:
        """Something became ready in ``places``; something new is scheduled."""
        for bell in self.bells:
            bell.ring(places)
        if scheduled:
            self.due.set()

    def ring_limited(self, *, news: bool = False) -> None:
        """Limits may let in something; ``news``: what others had."""
        for bell in self.bells:
            bell.news |= news
            bell.ring_limited()

    def ring_all(self) -> None:
        """Anything may have happened: look everywhere."""
        for bell in self.bells:
            bell.ring_all()
        self.due.set()
        self.tick.set()
