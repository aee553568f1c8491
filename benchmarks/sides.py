"""The two sides of every comparison, with the same verbs: prepare, dispatch, work, wait, and tell how long it took."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import datetime
from typing import Any, Protocol

import asyncpg

from benchmarks import servers
from benchmarks.floor import store
from benchmarks.floor import worker as floor_worker
from benchmarks.work import Work, chains
from flowrun import Flowrun
from flowrun.client.specs import Flow

OK = {"ok": True}
PATIENCE = 300.0
"""Seconds until a run counts as stuck."""


class Tally:
    """Counts handler calls, so that a drain is watched without asking the database while it runs."""

    def __init__(self) -> None:
        self.left = 0
        self.zero = asyncio.Event()

    def expect(self, calls: int) -> None:
        self.left = calls
        self.zero.clear()

    def hit(self) -> None:
        self.left -= 1
        if not self.left:
            self.zero.set()


class Side(Protocol):
    """flowrun or the floor, on a database of its own."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """With its tables, ready to dispatch."""

    async def dispatch(self, work: Work) -> None:
        """Store ``work``, durably; wakes a worker of this process."""

    def worker(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        """With a worker in this process."""

    async def drained(self, work: Work) -> None:
        """Wait until all of ``work`` is finished, in the database."""

    async def now(self) -> datetime:
        """The server's clock."""

    async def span(self, since: datetime) -> float:
        """Seconds from the first claim after ``since`` to the last finished job, by the server's clock."""


class FlowrunSide:
    """flowrun by its public names, as a user runs it; SQL only to read what is finished.

    ``timeout`` is the handler's.
    """

    def __init__(self, dsn: str, *, timeout: float | None = None, **settings: Any) -> None:
        self._dsn = dsn
        self._tally = tally = Tally()
        self._finished = 0
        self.app = Flowrun(dsn, **settings)

        @self.app.handler("noop", timeout=timeout)
        async def noop(order_id: int) -> dict[str, bool]:
            tally.hit()
            return OK

        self.noop = noop

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        self._reader = await asyncpg.connect(self._dsn)
        async with self.app:
            await self.app.migrate()
            yield
        self._reader.terminate()

    def flow(self, work: Work) -> Flow:
        """``work`` as a user would write it."""
        parents: list[list[int]] = [[] for _ in range(work.jobs)]
        for parent, child in work.edges:
            parents[child].append(parent)
        flow = self.app.flow("bench")
        nodes: list[Any] = []
        for above in parents:
            nodes.append(flow.add(self.noop.job(order_id=1), after=[nodes[parent] for parent in above]))
        return flow

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        if work.is_flow:
            await self.flow(work).dispatch()
        else:
            await self.app.dispatch_many([self.noop.job(order_id=1) for _ in range(work.jobs)])

    def worker(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        return self.app.worker(concurrency=concurrency)

    def expect(self, calls: int) -> None:
        """So many calls of the handler will be :meth:`enough`."""
        self._tally.expect(calls)

    async def enough(self) -> None:
        """Wait until the handler was called as often as expected."""
        await self._tally.zero.wait()

    async def drained(self, work: Work) -> None:
        await self._tally.zero.wait()
        self._finished += work.jobs + work.is_flow  # a flow's end is a job as well
        await _count(self._reader, "flowrun.finished", self._finished)

    async def now(self) -> datetime:
        return await _now(self._reader)

    async def span(self, since: datetime) -> float:
        return await _seconds(
            self._reader,
            "select min(started_at) as first, max(finished_at) as last from flowrun.finished where started_at >= $1",
            since,
        )


class FloorSide:
    """The floor."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._tally = Tally()
        self._finished = 0
        self._worker: floor_worker.Worker | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        self._reader = await asyncpg.connect(self._dsn)
        self.connection = await store.connect(self._dsn)
        await self._reader.execute(store.SQL["schema"])
        yield
        self._reader.terminate()
        self.connection.terminate()

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        await store.insert(self.connection, work)
        if self._worker is not None:
            self._worker.wake()

    @asynccontextmanager
    async def worker(self, concurrency: int) -> AsyncIterator[None]:
        async with floor_worker.running(self._dsn, {"noop": self.noop}, concurrency) as self._worker:
            yield
        self._worker = None

    async def noop(self, order_id: int) -> dict[str, bool]:
        """The handler."""
        self._tally.hit()
        return OK

    async def drained(self, work: Work) -> None:
        await self._tally.zero.wait()
        self._finished += work.jobs
        await _count(self._reader, "floor.finished", self._finished)

    async def now(self) -> datetime:
        return await _now(self._reader)

    async def span(self, since: datetime) -> float:
        return await _seconds(
            self._reader,
            "select (select min(claimed_at) from floor.leases where claimed_at >= $1) as first,"
            " max(finished_at) as last from floor.finished where finished_at >= $1",
            since,
        )


async def drain_backlog(
    side_type: Callable[[str], Side],
    dsn: str,
    work: Work,
    *,
    concurrency: int,
    analyze: bool = True,
    vacuum: bool = False,
    during: Callable[[str], AbstractAsyncContextManager[object]] = lambda _: nullcontext(),
) -> dict[str, float]:
    """A backlog is there when the worker starts. Timed from the first claim to the last finished job.

    Connecting is outside; preparing the worker's statements is inside, on both sides. ``cpu_us`` is what Python spent
    a job, from the worker's start on. ``during`` is about while it works, given the database's address.
    """
    async with asyncio.timeout(PATIENCE), servers.fresh_database(dsn) as database:
        side = side_type(database)
        async with side.opened(), during(database):
            await side.dispatch(work)
            await servers.tidy(database, analyze=analyze, vacuum=vacuum)
            since = await side.now()
            with quiet():
                before = time.process_time()
                async with side.worker(concurrency):
                    await side.drained(work)
                    used = time.process_time() - before
            seconds = await side.span(since)
    return {"ms": seconds * 1e3, "rate": work.jobs / seconds, "cpu_us": used / work.jobs * 1e6}


async def drain_fresh(
    side_type: Callable[[str], Side], dsn: str, work: Work, *, concurrency: int, analyze: bool = False
) -> dict[str, float]:
    """A worker is up, warm and idle when the work is dispatched. Timed from the first claim to the last finished job.

    ``analyze`` then runs while the queues are empty, so that the planner believes that they stay so.
    ``with_dispatch_ms``: from before the dispatch (in Python: writing the flow, too) until all was seen to be finished.
    """
    warm = chains(2, 10)
    async with asyncio.timeout(PATIENCE), servers.fresh_database(dsn) as database:
        side = side_type(database)
        async with side.opened(), side.worker(concurrency):
            for _ in range(4):
                await side.dispatch(warm)
                await side.drained(warm)
            await servers.tidy(database, analyze=analyze)
            since = await side.now()
            with quiet():
                start = time.perf_counter()
                await side.dispatch(work)
                await side.drained(work)
                whole = time.perf_counter() - start
            seconds = await side.span(since)
    return {"ms": seconds * 1e3, "rate": work.jobs / seconds, "with_dispatch_ms": whole * 1e3}


@contextmanager
def quiet() -> Iterator[None]:
    """What was made in preparation is not walked by the collector while the clock runs."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _count(reader: Any, table: str, jobs: int) -> None:
    while await reader.fetchval(f"select count(*) from {table}") < jobs:
        await asyncio.sleep(0.01)


async def _now(reader: Any) -> datetime:
    now: datetime = await reader.fetchval("select clock_timestamp()")
    return now


async def _seconds(reader: Any, query: str, since: datetime) -> float:
    first, last = await reader.fetchrow(query, since)
    seconds: float = (last - first).total_seconds()
    return seconds
