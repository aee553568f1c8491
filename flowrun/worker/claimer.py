"""The loop that claims: as much as there is room for, as soon as there is something."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import anyio

from flowrun.client.shield import shielded
from flowrun.core.attempt import Claimed
from flowrun.store import claim, listen, upkeep
from flowrun.store.blame import was_answered
from flowrun.store.claim import Marks
from flowrun.worker.intake import take_in
from flowrun.worker.limited import Limited
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler
from flowrun.worker.wake import Bell

_CLAIMING = "claim"

CHEAP = 0.002
"""Seconds a claim from the head of the queue may take and still be made at every wake."""
DOUBT = 0.4
"""Seconds that a claim may take before it is asked, by another way, whether the server works on it; then twice as
long, and so on."""
HEAD_SHARE = 20
"""Claims from the head take at most one part in so many of the time, but are made as often as a poll."""


class Claimer:
    """Claims from each queue's low-water mark, and now and then from its head.

    Rows that were deleted stay in the index while an old snapshot is open anywhere, so a claim from the head can become
    slow; it is made only as often as it is cheap. It finds what came late: commits that took long, retries, and jobs
    more urgent than those claimed last. Where limits count, :class:`Limited` claims instead, by turns.
    """

    def __init__(self, session: Session, settler: Settler, queues: Sequence[str], allotment: int | None = None) -> None:
        self._session = session
        self._settler = settler
        self._queues = queues
        self._allotment = allotment
        self._bell = Bell(queues)
        session.wake.bells.append(self._bell)
        self._marks = Marks([])
        self._limited = Limited(session, self._bell, settler)
        self._changes = -1
        """Of queues: how many this claims by."""
        self._turn = 0
        self._head_at = 0.0
        self._head_cost = 0.0
        self._again_at = 0.0
        """When to look at the head again although no bell has rung ..."""
        self._polls = True
        """... and whether that is the slow poll, which looks everywhere."""
        self._doubtful: list[int] = []
        """Leases whose claim was sent and never answered."""
        self._heard_by = 0
        """The server process that tells what becomes ready."""
        self._asked: Any = None
        """The connection whose answer is waited for."""
        self._late = anyio.Event()
        """An answer takes long."""

    async def run(self) -> None:
        """Claim until cancelled; a lost connection is replaced."""
        while True:
            connection: Any = None
            try:
                connection = await self._session.connect(self._session.patience, synchronous_commit="off")
                await self._listen(connection)
                await self._give_back_doubtful(connection)
                # What was announced before it listened; and the claim that was lost may be the one that a notification
                # had brought about.
                self._bell.ring_all()
                while True:
                    await self._step(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and nobody else claims here
                await anyio.sleep(self._session.troubles.met(_CLAIMING, error))
            finally:
                if connection is not None:
                    self._session.listeners.discard(self._heard_by)
                    connection.terminate()

    async def watch(self) -> None:
        """Give up links that are half-open, until cancelled: what the server does not work on is not answered any more.

        A time limit alone would have to be long: a claim that takes long is not to be lost on a server that is slow.
        """
        while True:
            await self._late.wait()
            self._late = anyio.Event()
            asked, pause = self._asked, DOUBT
            while asked is not None and self._asked is asked:
                with suppress(Exception):  # the server is not to be reached: whoever waits for it will see
                    if await self._is_lost(asked) and self._asked is asked:
                        asked.terminate()
                        break
                await anyio.sleep(pause)
                pause *= 2

    async def _is_lost(self, asked: Any) -> bool:
        database = self._session.client.database
        other = await database.connect(patience=1.0)
        try:
            return not await listen.works_on(other, database.sql, asked.get_server_pid())
        finally:
            other.terminate()

    async def _listen(self, connection: Any) -> None:
        """Hear what becomes ready where it is claimed: a thread in between costs who is idle another 0.2 ms."""
        session = self._session
        if not session.claimers_listen:
            return
        channels = {session.client.channels.queue(queue): queue for queue in self._queues}

        def heard(channel: str, payload: str) -> None:
            self._bell.ring([listen.place(channels[channel], payload)])

        await listen.listen(connection, channels, heard)
        # Who sleeps would notice at the next poll only: it tries to claim, and finds out.
        connection.add_termination_listener(lambda _: self._bell.ring_all())
        self._heard_by = connection.get_server_pid()
        session.listeners.add(self._heard_by)

    async def _step(self, connection: Any) -> None:
        session = self._session
        if self._changes != session.changes:
            self._learn()
        room = self._room()
        if room <= 0 or session.stopping or self._settler.behind:
            session.buffer.room_made.clear()
            await session.buffer.room_made.wait()
            return
        self._bell.ready.clear()
        if self._limited.turn():
            await self._asking(room, connection, self._claim_limited(connection, room))
            return
        if not self._bell.plain:
            await self._sleep()
            return
        self._bell.plain = False
        from_head = self._choose_start()
        jobs = await self._asking(room, connection, self._claim(connection, room))
        now = monotonic()
        if from_head:
            self._head_cost = now - self._head_at
            # A claim is slow where this loop was blocked, too: that must not keep it from the head longer than a poll.
            poll = max(session.client.settings.poll, self._head_cost)
            self._head_at = now + min(self._head_cost * HEAD_SHARE, poll)
        self._settler.backlog = len(jobs) == room
        # A bell that has rung meanwhile may be about what this claim could not see.
        self._bell.plain |= self._settler.backlog
        # Nothing behind the mark? Before the next poll, look at the head once more, when its turn has come.
        self._polls = from_head
        self._again_at = now + session.client.settings.poll if from_head else self._head_at

    async def _sleep(self) -> None:
        """Until the bell rings, or it is time to look again."""
        waits = [max(0.0, self._again_at - monotonic())]
        if (until := self._limited.again_in()) is not None:
            waits.append(until)
        with anyio.move_on_after(min(waits)):
            await self._bell.ready.wait()
            return
        if monotonic() >= self._again_at:
            self._marks.rewind()
            self._bell.plain = True
            if self._polls:
                self._bell.ring_all()

    def _learn(self) -> None:
        """Queues were limited, paused, or set free."""
        session = self._session
        self._changes = session.changes
        self._limited.learn(self._queues)
        self._marks = Marks([queue for queue in self._queues if not session.is_limited(queue)])

    def _room(self) -> int:
        room = self._session.buffer.room()
        if self._allotment is None:
            return room
        return min(room, self._allotment - self._session.busy(self._queues))

    async def _asking(self, room: int, connection: Any, claiming: Any) -> list[Claimed]:
        """Claim, so that no other claimer of this worker fills the same room meanwhile."""
        buffer = self._session.buffer
        buffer.asked += room
        self._asked = connection
        # Through a pooler nobody knows which session it is.
        timer = asyncio.get_running_loop().call_later(DOUBT, self._late.set) if self._heard_by else None
        try:
            jobs: list[Claimed] = await shielded(claiming)
        finally:
            buffer.asked -= room
            self._asked = None
            if timer is not None:
                timer.cancel()
        if self._session.troubles:
            self._session.troubles.over(_CLAIMING)
        if len(jobs) < room:
            buffer.room_made.set()
        return jobs

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
        if not self._marks.queues:
            return []
        lease = session.next_lease()
        self._turn += 1
        self._doubtful.append(lease)
        try:
            jobs = await claim.claim(
                connection,
                session.client.database.sql,
                worker_id=session.id,
                lease=lease,
                limit=room,
                types=session.open_types,
                marks=self._marks,
                changes=self._changes,
                turn=self._turn,
            )
        except Exception as error:
            if was_answered(error):
                self._doubtful.remove(lease)
            raise
        await self._take_in(connection, jobs)
        self._doubtful.remove(lease)
        return jobs

    async def _claim_limited(self, connection: Any, room: int) -> list[Claimed]:
        count = max(room, len(self._queues))
        first = self._session.next_lease(count)
        self._doubtful.extend(range(first, first + count))
        try:
            jobs = await self._limited.claim(connection, first, room, self._changes)
        except Exception as error:
            if was_answered(error):
                del self._doubtful[-count:]
            raise
        await self._take_in(connection, jobs)
        del self._doubtful[-count:]
        return jobs

    async def _take_in(self, connection: Any, jobs: Sequence[Claimed]) -> None:
        for ended in await take_in(self._session, connection, jobs):
            self._settler.put(ended)

    async def _give_back_doubtful(self, connection: Any) -> None:
        if self._doubtful:
            sql = self._session.client.database.sql
            places = await upkeep.hand_back(connection, sql, worker_id=self._session.id, leases=self._doubtful)
            self._session.gates.forget(self._doubtful)
            self._doubtful.clear()
            self._session.client.notifier.wake(places)
