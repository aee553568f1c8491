"""The loop that claims: as much as there is room for, as soon as there is something."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import anyio

from flowrun.client.shield import shielded
from flowrun.core.attempt import Claimed
from flowrun.core.compile import TYPES
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.store import claim, upkeep
from flowrun.store.claim import Marks
from flowrun.store.pool import LOST, REPEATABLE
from flowrun.worker.intake import take_in
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler

logger = logging.getLogger("flowrun.worker")

CHEAP = 0.002
"""Seconds a claim from the head of the queue may take and still be made at every wake."""
HEAD_SHARE = 20
"""Claims from the head take at most one part in so many of the time."""


class Claimer:
    """Claims from each queue's low-water mark, and now and then from its head.

    Rows that were deleted stay in the index while an old snapshot is open anywhere, so a claim from the head can become
    slow; it is made only as often as it is cheap. It finds what came late: commits that took long, retries, and jobs
    more urgent than those claimed last.
    """

    def __init__(self, session: Session, settler: Settler) -> None:
        self._session = session
        self._settler = settler
        self._marks = Marks([SYSTEM_QUEUE, *session.queues])
        self._types = [*session.types, *TYPES.values()]
        self._turn = 0
        self._head_at = 0.0
        self._head_cost = 0.0
        self._doubtful: list[int] = []
        """Leases whose claim was sent and never answered."""

    async def run(self) -> None:
        """Claim until cancelled; a lost connection is replaced."""
        while True:
            connection: Any = None
            try:
                connection = await self._session.connect(synchronous_commit="off")
                await self._give_back_doubtful(connection)
                while True:
                    await self._step(connection)
            except LOST as error:
                logger.warning("the claiming connection was lost (%s); connecting again", error)
                await anyio.sleep(0.5)
            except REPEATABLE as error:
                logger.info("a claim is repeated: %s", error)
                await anyio.sleep(0.05)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _step(self, connection: Any) -> None:
        session = self._session
        room = session.buffer.room()
        if room <= 0 or session.stopping:
            session.buffer.room_made.clear()
            await session.buffer.room_made.wait()
            return
        session.wake.ready.clear()
        from_head = self._choose_start()
        jobs = await shielded(self._claim(connection, room))
        if from_head:
            self._head_cost = monotonic() - self._head_at
            self._head_at += self._head_cost * (1 + HEAD_SHARE)
        if len(jobs) == room:
            self._settler.backlog = True
            return
        self._settler.backlog = False
        if not from_head:
            # Nothing behind the mark. Before sleeping, look at the head once more, when its turn has come.
            with anyio.move_on_after(max(0.0, self._head_at - monotonic())):
                await session.wake.ready.wait()
            if monotonic() >= self._head_at:
                self._marks.rewind()
            return
        with anyio.move_on_after(session.client.settings.poll) as scope:
            await session.wake.ready.wait()
        if scope.cancelled_caught:
            self._marks.rewind()

    def _choose_start(self) -> bool:
        now = monotonic()
        if now >= self._head_at or (self._head_cost < CHEAP and not self._settler.backlog):
            self._marks.rewind()
        if self._marks.at:
            return False
        self._head_at = now
        return True

    async def _claim(self, connection: Any, room: int) -> list[Claimed]:
        session = self._session
        lease = session.next_lease()
        self._turn += 1
        self._doubtful.append(lease)
        jobs = await claim.claim(
            connection,
            session.client.database.sql,
            worker_id=session.id,
            lease=lease,
            limit=room,
            types=self._types,
            marks=self._marks,
            turn=self._turn,
        )
        for ended in await take_in(session, connection, jobs):
            self._settler.put(ended)
        self._doubtful.remove(lease)
        return jobs

    async def _give_back_doubtful(self, connection: Any) -> None:
        if self._doubtful:
            sql = self._session.client.database.sql
            queues = await upkeep.hand_back(connection, sql, worker_id=self._session.id, leases=self._doubtful)
            self._doubtful.clear()
            self._session.client.notifier.wake(queues)
