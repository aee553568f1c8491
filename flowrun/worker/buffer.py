"""Claimed jobs on their way to a free consumer, and how many more to ask for."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from flowrun.core.attempt import Claimed

WINDOW = 0.05
"""Seconds of work to hold ahead of the consumers: about two round trips under load."""
LARGEST_CLAIM = 400
"""Jobs in one lease; its arrays then fit into one page of the table."""


class Pace:
    """How fast jobs end, and so how many to have ahead."""

    __slots__ = ("_before", "_now", "count")

    def __init__(self) -> None:
        self.count = 0
        """Jobs that have ended."""
        self._before = (monotonic(), 0)
        self._now = (monotonic(), 0)

    def ahead(self) -> int:
        """Jobs that end in :data:`WINDOW` seconds."""
        now = monotonic()
        if now - self._now[0] > WINDOW:
            self._before, self._now = self._now, (now, self.count)
        elapsed = now - self._before[0]
        return int((self.count - self._before[1]) / elapsed * WINDOW) if elapsed > 0 else 0


class Buffer:
    """A queue between claims and consumers that holds little.

    A job that waits here waits for this worker alone, so only as many are taken ahead as the consumers have lately
    finished in :data:`WINDOW` seconds: many where jobs take microseconds, none where they take seconds.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.jobs: deque[Claimed] = deque()
        self.running = 0
        self.closed = False
        """Nothing more is to come, since a job is tried alone."""
        self.asked = 0
        """Room that a claim under way may fill."""
        self.room_made = asyncio.Event()
        self.held: Counter[int] = Counter()
        """By lease: jobs of it that are not settled yet."""
        self.serve: Callable[[], None] = _nobody
        """Lets consumers that have nothing to do begin what is here."""
        self._pace = Pace()

    def room(self) -> int:
        """How many jobs more may be claimed."""
        return 0 if self.closed else min(self.free() + self._pace.ahead(), LARGEST_CLAIM)

    def free(self) -> int:
        """How many consumers have nothing to do, and nothing coming."""
        return 0 if self.closed else self.concurrency - self.running - len(self.jobs) - self.asked

    def put(self, jobs: Iterable[Claimed]) -> None:
        """Offer claimed jobs to the consumers."""
        self.jobs.extend(jobs)
        self.serve()

    def hold(self, jobs: Sequence[Claimed]) -> None:
        """The jobs of a lease, or of several, are this worker's."""
        if jobs and jobs[0].lease == jobs[-1].lease:
            self.held[jobs[0].lease] += len(jobs)
        else:
            self.held.update(job.lease for job in jobs)

    def release(self, leases: Iterable[int]) -> tuple[list[int], list[int]]:
        """Jobs are leaving their leases: the leases concerned, and those that are empty then."""
        concerned = Counter(leases)
        spent = []
        for lease, count in concerned.items():
            self.held[lease] -= count
            if self.held[lease] <= 0:
                del self.held[lease]
                spent.append(lease)
        return list(concerned), spent

    def take(self) -> Claimed | None:
        """The next job, if there is one."""
        if not self.jobs:
            return None
        self.running += 1
        return self.jobs.popleft()

    def finished(self) -> None:
        """A consumer has done a job."""
        self.running -= 1
        self._pace.count += 1
        if len(self.jobs) <= self.concurrency:
            self.room_made.set()


def _nobody() -> None:
    """There are no consumers yet, or no more."""
