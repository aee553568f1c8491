"""Jobs dispatched one by one, written together: what came while the last insert was under way goes with the next.

There is no timer: who dispatches alone waits for nobody, and writes itself. Many at once share a statement and a
commit: 32 at once get twice to thrice the rate that they had each on a connection of its own (see docs/design.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol
from uuid import UUID

import anyio
from anyio.abc import TaskStatus

from flowrun.client.notify import Notifier
from flowrun.client.shield import shielded
from flowrun.core.attempt import Claimed
from flowrun.core.plan import JobRow, Plan
from flowrun.errors import DatabaseUnavailable, FlowrunError
from flowrun.guarded import sheltered
from flowrun.store import granted, insert, upkeep
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.pool import LOST, Connection, Database

_GIVING_BACK = "give back jobs whose insert was never answered"

WRITERS = 2
"""Inserts under way at once: while one waits for the disk, the next is on its way (more make smaller batches)."""

LARGEST = 500
"""Jobs in one insert ..."""
HEAVIEST = 1_000_000
"""... and characters of their arguments; one caller's are never divided."""
RETRY = 0.5
"""Seconds until a lease that is in doubt is looked after, if nobody dispatches before."""


class Offer(NamedTuple):
    """A worker of this process would take some jobs as they are stored."""

    worker_id: UUID
    lease: int
    take: list[UUID]
    changes: int
    """Of queues: those the worker knows of."""


class Taker(Protocol):
    """A worker of this process with consumers to spare."""

    def offer(self, jobs: Sequence[JobRow]) -> Offer | None:
        """What it would take of ``jobs``; it keeps the room until :meth:`take` is called."""
        ...

    def take(self, offer: Offer, jobs: Sequence[Claimed]) -> None:
        """It has got these."""
        ...


class _Waiting:
    """A caller."""

    __slots__ = ("jobs", "written")

    def __init__(self, jobs: Sequence[JobRow], written: asyncio.Future[None]) -> None:
        self.jobs = jobs
        self.written = written


class Singles:
    """The one who writes them. Each caller gets the error that is its own."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._waiting: list[_Waiting] = []
        self._wanted = asyncio.Event()
        self._running = False
        self._under_way = 0
        """Inserts."""
        self._crowd = False
        """The last insert was several callers'."""
        self._doubtful: list[tuple[UUID, int]] = []
        """Leases, by worker, whose insert was sent and never answered."""
        self.takers: list[Taker] = []

    async def write(self, jobs: Sequence[JobRow]) -> None:
        """Store ``jobs``, durably when it returns, and wake workers. Cancelled, they may be stored or not."""
        self._database.here()
        if not self._running:  # the app is not open, which is what the pool will say
            await self._insert(jobs)
            return
        if not (self._under_way or self._waiting or self._crowd):
            await self._write_alone(jobs)
            return
        waiting = _Waiting(jobs, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wanted.set()
        try:
            await waiting.written
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled."""
        self._running = True
        task_status.started()
        try:
            async with anyio.create_task_group() as group:
                for _ in range(WRITERS):
                    group.start_soon(sheltered, self._write_on)
        finally:
            self._running = False
            for waiting in self._waiting:
                if not waiting.written.done():
                    waiting.written.set_exception(FlowrunError("the app was closed while it dispatched"))

    async def _write_alone(self, jobs: Sequence[JobRow]) -> None:
        """Nobody else dispatches: no task to wake, and to be woken by."""
        self._under_way += 1
        try:
            await shielded(self._insert(jobs))
        finally:
            self._under_way -= 1
            if self._waiting or self._doubtful:
                self._wanted.set()

    async def _write_on(self) -> None:
        while True:
            with anyio.move_on_after(RETRY if self._doubtful else None):
                await self._wanted.wait()
            self._wanted.clear()
            while self._waiting and self._under_way < WRITERS:
                batch = self._next()
                self._crowd = len(batch) > 1
                self._under_way += 1
                try:
                    await self._write(batch)
                finally:
                    self._under_way -= 1
                await anyio.lowlevel.checkpoint()
            if self._doubtful:
                await self._look_after_doubtful()

    def _next(self) -> list[_Waiting]:
        jobs = size = count = 0
        for waiting in self._waiting:
            jobs += len(waiting.jobs)
            size += sum(len(job.args) for job in waiting.jobs)
            if count and (jobs > LARGEST or size > HEAVIEST):
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        """Write a batch; one by one if it cannot be written, so that each learns what is wrong with its own."""
        try:
            await shielded(self._insert([job for waiting in batch for job in waiting.jobs]))
        except Exception as error:  # noqa: BLE001 - it is the callers'
            if len(batch) == 1 or isinstance(error, DatabaseUnavailable):
                for waiting in batch:
                    if not waiting.written.done():
                        waiting.written.set_exception(_own(error) if len(batch) > 1 else error)
                return
            for waiting in batch:
                await self._write([waiting])
            return
        for waiting in batch:
            if not waiting.written.done():
                waiting.written.set_result(None)

    async def _insert(self, jobs: Sequence[JobRow]) -> None:
        ready = {job.queue for job in jobs if job.delay is None and job.run_at is None}
        scheduled = any(job.delay is not None or job.run_at is not None for job in jobs)
        for taker in self.takers:
            if (offer := taker.offer(jobs)) is not None:
                taken = await self._insert_taken(jobs, offer, taker)
                if len(taken) < len(jobs):
                    ids = {job.id for job in taken}
                    self._notifier.wake({job.queue for job in jobs if job.id not in ids}, scheduled=scheduled)
                return
        messages = self._notifier.ride(ready, scheduled=scheduled)
        sql = self._database.sql

        async def verb(connection: Connection, writes: bool) -> None:
            await self._give_back(connection)
            if writes:
                await insert.insert_jobs(connection, sql, jobs, messages)
            else:
                await granted.dispatch(AsyncpgCaller(connection, nullcontext), sql, Plan(jobs=list(jobs)), messages)

        await granted.written(self._database, verb)
        self._notifier.wake(ready, scheduled=scheduled, told=bool(messages))

    async def _insert_taken(self, jobs: Sequence[JobRow], offer: Offer, taker: Taker) -> Sequence[Claimed]:
        """Write ``jobs``, some of them into a worker's lease. After a lost answer that lease is void."""
        sql = self._database.sql
        taken: Sequence[Claimed] | None = None
        lost = False

        async def verb(connection: Connection) -> None:
            nonlocal lost, taken
            await self._give_back(connection)
            if lost:
                await insert.insert_jobs(connection, sql, jobs)
                return
            try:
                taken = await insert.insert_taken(
                    connection, sql, jobs, worker_id=offer.worker_id, lease=offer.lease, take=offer.take,
                    changes=offer.changes,
                )  # fmt: skip
            except LOST:
                lost = True
                self._doubtful.append((offer.worker_id, offer.lease))
                raise
            taker.take(offer, taken)  # at once: they do not wait until the pool has its connection back

        try:
            await self._database.repeat(verb)
        finally:
            if taken is None:
                taker.take(offer, ())
        return taken or ()

    async def _look_after_doubtful(self) -> None:
        try:
            await shielded(self._database.repeat(self._give_back))
        except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and as long as it lasts nobody has them
            await anyio.sleep(self._notifier.troubles.met(_GIVING_BACK, error))
        else:
            self._notifier.troubles.over(_GIVING_BACK)

    async def _give_back(self, connection: Connection) -> None:
        """Leases that nobody knows: their jobs are ready again."""
        for doubtful in list(self._doubtful):
            worker_id, lease = doubtful
            places = await upkeep.hand_back(connection, self._database.sql, worker_id=worker_id, leases=[lease])
            if doubtful in self._doubtful:
                self._doubtful.remove(doubtful)
            self._notifier.wake(places)


def _own(error: Exception) -> Exception:
    """One for each caller: an exception that several raise collects all their tracebacks."""
    own = DatabaseUnavailable(str(error))
    own.__cause__ = error
    return own
