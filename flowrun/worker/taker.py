"""Jobs dispatched in a worker's own process, claimed by the insert that stores them."""

from __future__ import annotations

from collections.abc import Sequence

from flowrun.client.singles import Offer
from flowrun.core.attempt import Claimed
from flowrun.core.plan import JobRow
from flowrun.worker import intake
from flowrun.worker.buffer import LARGEST_CLAIM
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler
from flowrun.worker.upkeep import empty_buffer


class Taker:
    """Offers the consumers that are free right now, where nothing else is waiting for them."""

    def __init__(self, session: Session, settler: Settler) -> None:
        self._session = session
        self._settler = settler
        self._types = frozenset(session.types)

    def offer(self, jobs: Sequence[JobRow]) -> Offer | None:
        """What it would take of ``jobs``; it keeps the room until :meth:`take` is called.

        Only from queues whose jobs nobody counts, and not while more is ready than the worker can take: that came
        first.
        """
        session = self._session
        buffer = session.buffer
        room = min(buffer.free(), LARGEST_CLAIM)
        if room <= 0 or session.stopping or session.lost.is_set() or self._settler.backlog:
            return None
        take = [job.id for job in jobs if job.delay is None and job.run_at is None and self._serves(job)][:room]
        if not take:
            return None
        buffer.asked += len(take)
        return Offer(session.id, session.next_lease(), take, session.changes)

    def take(self, offer: Offer, jobs: Sequence[Claimed]) -> None:
        """It has got these: they need no inputs, having no parents."""
        buffer = self._session.buffer
        buffer.asked -= len(offer.take)
        for refused in intake.offer(self._session, jobs, jobs):
            self._settler.put(refused)
        buffer.room_made.set()
        if self._session.stopping:
            empty_buffer(self._session, self._settler)

    def _serves(self, job: JobRow) -> bool:
        return (
            job.type in self._types
            and job.type not in self._session.paused_types
            and job.queue in self._session.handoff_queues
        )
