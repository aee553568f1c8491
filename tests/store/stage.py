"""Graphs in the database and workers to settle them: the ground on which the store's tests stand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from flowrun import mint
from flowrun.core.attempt import Claimed, Ending, Failure, Success
from flowrun.core.plan import FlowRow, JobRow, Plan
from flowrun.core.states import Outcome
from flowrun.store import claim, insert, settle, upkeep
from flowrun.store.claim import Marks
from flowrun.store.pool import PINNED
from flowrun.store.settle import Leases, Settled
from flowrun.store.statement import Statements

QUEUE, TYPE = "default", "step"
SETTINGS = {**PINNED, "lock_timeout": "30s", "deadlock_timeout": "200ms"}


def job_row(
    id: UUID | None = None,
    *,
    flow_id: UUID | None = None,
    kind: int = 0,
    queue: str = QUEUE,
    type: str = TYPE,
    priority: int = 5,
    optional: bool = False,
    delay: float | None = None,
    run_at: datetime | None = None,
    options: str | None = None,
    args: str = "{}",
) -> JobRow:
    return JobRow(
        id or mint.job_id(), flow_id, kind, None, queue, type, args, None, None, priority, optional, delay, run_at,
        options,
    )  # fmt: skip


def plan_of(
    jobs: Sequence[JobRow], edges: Iterable[tuple[UUID, UUID, int]], needs: Mapping[UUID, int] | None = None
) -> Plan:
    """A flow's plan; ``needs`` says how many edges a job waits for where that is not all of them."""
    edges = [tuple(edge) for edge in edges]
    waits = Counter(child for _, child, _ in edges)
    flow = mint.job_id()
    return Plan(
        jobs=list(jobs),
        edges=edges,
        blocked=[(id, (needs or {}).get(id, count), count) for id, count in waits.items()],
        flows=[FlowRow(flow, flow, "test", [])],
        free=[job for job in jobs if job.id not in waits],
    )


class Worker:
    """A worker as the store sees it: an id, a connection, leases by number, jobs of them that are not settled."""

    def __init__(
        self,
        connection: Any,
        sql: Statements,
        *,
        queues: Sequence[str] = (QUEUE,),
        types: Sequence[str] = (TYPE,),
        name: str = "w",
    ) -> None:
        self.id = mint.job_id()
        self.connection = connection
        self.sql = sql
        self.queues, self.types, self.name = list(queues), list(types), name
        self.marks = Marks(self.queues)
        self.held: Counter[int] = Counter()
        self._n = 0
        self._turn = 0

    async def register(self, lease: float = 60.0) -> Worker:
        await upkeep.register(
            self.connection, self.sql, worker_id=self.id, name=self.name, queues=self.queues, concurrency=10,
            lease=lease,
        )  # fmt: skip
        return self

    def next_lease(self) -> int:
        self._n += 1
        return self._n

    async def claim(self, limit: int = 100, *, from_head: bool = True, lease: int | None = None) -> list[Claimed]:
        if from_head:
            self.marks.rewind()
        n = lease or self.next_lease()
        jobs = await claim.claim(
            self.connection, self.sql, worker_id=self.id, lease=n, limit=limit, types=self.types, marks=self.marks,
            turn=self._turn,
        )  # fmt: skip
        self.held[n] += len(jobs)
        return jobs

    def leaving(self, jobs: Iterable[Any]) -> Leases:
        """The leases of ``jobs``, and those with nothing else in them; counts, as the worker's buffer does."""
        concerned = Counter(job.lease for job in jobs)
        spent = []
        for n, count in concerned.items():
            self.held[n] -= count
            if self.held[n] <= 0:
                del self.held[n]
                spent.append(n)
        return Leases(list(concerned), spent)

    async def settle(
        self,
        jobs: Sequence[Claimed],
        *,
        handoff: int = 0,
        leases: Leases | None = None,
        results: Sequence[str | None] | None = None,
        queues: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        handoff_lease: int | None = None,
    ) -> Settled:
        n = handoff_lease or self.next_lease()
        settled = await settle.settle(
            self.connection,
            self.sql,
            worker_id=self.id,
            successes=successes(jobs, results),
            leases=leases or self.leaving(jobs),
            handoff=handoff,
            handoff_lease=n,
            queues=self.queues if queues is None else queues,
            types=self.types if types is None else types,
        )
        if settled.handoff:
            self.held[n] += len(settled.handoff)
        return settled

    async def end(self, endings: Sequence[Ending], leases: Leases | None = None) -> Settled:
        return await settle.settle_endings(
            self.connection, self.sql, worker_id=self.id, worker=self.name, endings=endings,
            leases=leases or self.leaving(endings),
        )  # fmt: skip


def successes(jobs: Iterable[Claimed], results: Sequence[str | None] | None = None) -> list[Success]:
    jobs = list(jobs)
    return [
        Success(job.id, job.lease, job.attempt, result)
        for job, result in zip(jobs, results or ["1"] * len(jobs), strict=True)
    ]


def failed(job: Claimed) -> Ending:
    return Ending(
        job.id, job.lease, job.attempt, Outcome.FAILED, failure=Failure("ValueError", "broke", None),
        error='{"type":"ValueError","message":"broke"}',
    )  # fmt: skip


def succeeded(job: Claimed, result: str | None = "1") -> Ending:
    return Ending(job.id, job.lease, job.attempt, Outcome.SUCCEEDED, result=result)


def again(job: Claimed, delay: float = 0.0, *, used: int | None = None) -> Ending:
    used = job.attempt if used is None else used
    failure = Failure("ValueError", "broke", None) if used == job.attempt else None
    return Ending(job.id, job.lease, job.attempt, None, failure=failure, delay=delay, attempts_used=used)


async def put(connection: Any, sql: Statements, *rows: JobRow) -> list[UUID]:
    """Single jobs."""
    await insert.insert_jobs(connection, sql, rows)
    return [row.id for row in rows]


async def connect(dsn: str, **settings: str) -> Any:
    return await asyncpg.connect(dsn, server_settings={**SETTINGS, **settings})


@asynccontextmanager
async def connections(dsn: str, count: int, **settings: str):
    opened = await asyncio.gather(*(connect(dsn, **settings) for _ in range(count)))
    try:
        yield opened
    finally:
        for connection in opened:
            connection.terminate()


async def until_waiting(watch: Any, connection: Any, *, timeout: float = 10.0) -> None:
    """Return when ``connection``'s backend waits for a lock; RuntimeError if it does not."""
    pid = connection.get_server_pid()
    async with asyncio.timeout(timeout):
        while not await watch.fetchval("select wait_event_type = 'Lock' from pg_stat_activity where pid = $1", pid):
            await asyncio.sleep(0.002)


async def deadlocks(dsn: str, mine: Any) -> int:
    """Deadlocks in this database so far. Waits until all backends but ``mine`` have gone: a living one reports late."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and pid not in (pg_backend_pid(), $1) and backend_type = 'client backend'",
                mine.get_server_pid(),
            ):
                await asyncio.sleep(0.01)
        return await connection.fetchval("select deadlocks from pg_stat_database where datname = current_database()")
    finally:
        await connection.close()


async def places(connection: Any, id: UUID) -> list[str]:
    """The tables a job stands in; exactly one at rest."""
    row = await connection.fetchrow(
        """select
            exists (select from flowrun.blocked where id = $1) as blocked,
            exists (select from flowrun.scheduled where id = $1) as scheduled,
            exists (select from flowrun.ready where id = $1) as ready,
            exists (
                select from flowrun.leases where $1 = any(jobs)
                and not exists (select from flowrun.finished where id = $1)
            ) as leases,
            exists (select from flowrun.finished where id = $1) as finished""",
        id,
    )
    return [name for name, there in row.items() if there]


async def outcomes(connection: Any) -> dict[UUID, Outcome]:
    return {row[0]: Outcome(row[1]) for row in await connection.fetch("select id, outcome from flowrun.finished")}
