"""The thinnest worker: N consumers over a deque, one loop that claims, one that settles whatever is done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson

from benchmarks.floor import store

Handler = Callable[..., Awaitable[Any]]

UNSETTLED = 2000
"""Jobs done but not settled after which a consumer lets the others run."""


class Job:
    """A claimed job."""

    __slots__ = ("args", "attempt", "flow_id", "id", "lease", "type")

    def __init__(self, row: Any) -> None:
        self.id, self.attempt, self.lease, self.flow_id, self.type, self.args = row


class Worker:
    """What the loops share. No retries, no timeouts, no heartbeat, no rescue."""

    def __init__(self, handlers: Mapping[str, Handler], concurrency: int) -> None:
        self.handlers = handlers
        self.concurrency = concurrency
        self.jobs: deque[Job] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()
        self.done: list[tuple[UUID, int, int, bytes]] = []
        self.more = False
        """Whether the last claim found something: only then is the next worth asking for unasked."""
        self.wanted = asyncio.Event()
        self.finished = asyncio.Event()

    def wake(self, *_: Any) -> None:
        """Something may be ready; also a listener's callback."""
        self.wanted.set()

    def put(self, rows: Sequence[Any]) -> None:
        """Offer rows to the consumers."""
        self.jobs.extend(map(Job, rows))
        free = len(rows)
        while self.idle and free:
            future = self.idle.popleft()
            free -= 1
            if not future.done():
                future.set_result(None)

    async def consume(self) -> None:
        """Run one job after the other."""
        loop = asyncio.get_running_loop()
        jobs, idle, handlers, low = self.jobs, self.idle, self.handlers, self.concurrency
        while True:
            while not jobs:
                future = loop.create_future()
                idle.append(future)
                await future
            if self.more and len(jobs) <= low:
                self.wanted.set()
            job = jobs.popleft()
            value = await handlers[job.type](**job.args)
            self.done.append((job.id, job.attempt, job.lease, orjson.dumps(value)))
            self.finished.set()
            if len(self.done) > UNSETTLED:
                await asyncio.sleep(0)

    async def claim(self, connection: Any) -> None:
        """Claim from the low-water mark on while there is room; from the head again after nothing was found."""
        head = mark = UUID(int=0)
        statement = await connection.prepare(store.SQL["claim"])
        while True:
            self.wanted.clear()
            if len(self.jobs) <= self.concurrency:
                rows = await statement.fetch(store.QUEUE, 2 * self.concurrency, mark)
                self.more = bool(rows)
                if rows:
                    mark = max(row[0] for row in rows)
                    self.put(rows)
                    continue
                if mark != head:
                    mark = head
                    continue
            await self.wanted.wait()

    async def settle(self, connection: Any) -> None:
        """Settle all that finished while the last settle was under way. One durable commit each."""
        statement = await connection.prepare(store.SQL["settle"])
        limit = 2 * self.concurrency
        while True:
            await self.finished.wait()
            self.finished.clear()
            while self.done:
                done, self.done = self.done, []
                ids, attempts, leases, results = zip(*done, strict=True)
                rows = await statement.fetch(ids, attempts, leases, results, list(set(leases)), limit)
                if rows:
                    self.put(rows)
                if len(rows) == limit:
                    # There may be more: also for a claim that finds no room now, and is asked again when there is.
                    self.more = True
                    self.wanted.set()


@asynccontextmanager
async def running(dsn: str, handlers: Mapping[str, Handler], concurrency: int) -> AsyncIterator[Worker]:
    """A worker with its two connections and a third that listens."""
    worker = Worker(handlers, concurrency)
    claiming = await store.connect(dsn, **store.CLAIMING)
    settling = await store.connect(dsn, **store.SETTLING)
    listening = await store.connect(dsn)
    await listening.add_listener(store.CHANNEL, worker.wake)
    loops = [worker.claim(claiming), worker.settle(settling), *(worker.consume() for _ in range(concurrency))]
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield worker
    finally:
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception):
                raise error
        for connection in (claiming, settling, listening):
            connection.terminate()
