"""A large database: ten million finished jobs, a million ready ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import asyncpg

from benchmarks import servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FlowrunSide, drain_backlog, quiet
from benchmarks.work import flat

PART = 20_000
_IDS = "(lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid"  # a UUIDv7 of long ago
_JOBS = f"""
    insert into flowrun.jobs (id, queue, type, args)
    select {_IDS}, 'default', 'noop', '{{"order_id":1}}' from generate_series($1::bigint, $2::bigint) n
"""
_FINISHED = f"""
    insert into flowrun.finished (id, outcome, attempt, result, started_at)
    select {_IDS}, 1, 1, '{{"ok":true}}', now() from generate_series($1::bigint, $2::bigint) n
"""


def contests(dsn: str, scale: float) -> list[Contest]:
    """200,000 jobs of a million, after ten million, against 200,000 alone."""
    large = Large(dsn, finished=round(10_000_000 * scale), ready=max(40, round(1_000_000 * scale)))
    part = flat(large.ready // 5)
    return [
        Contest(
            f"{part.jobs:,} of {large.ready:,} ready, {large.finished:,} finished",
            partial(large.drain, part.jobs),
            partial(drain_backlog, FlowrunSide, dsn, part, concurrency=100, vacuum=True),
            [Figure("rate", "jobs/s", goal=Goal(0.8, at_least=True))],
            against=f"only {part.jobs:,}",
            around=large.made,
        )
    ]


class Large:
    """A database that is filled once, and filled up again before each run."""

    def __init__(self, dsn: str, *, finished: int, ready: int) -> None:
        self._dsn = dsn
        self._database = ""
        self.finished = finished
        self.ready = ready

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make it; drop it afterwards."""
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            try:
                self._database = runner.run(stack.enter_async_context(servers.fresh_database(self._dsn)))
                runner.run(self._fill())
                yield
            finally:
                runner.run(stack.aclose())

    async def drain(self, jobs: int) -> dict[str, float]:
        """How fast ``jobs`` of those that are ready are done."""
        side = FlowrunSide(self._database)
        async with side.opened():
            reader = await asyncpg.connect(self._database)
            await self._fill_up(side, reader)
            await servers.tidy(self._database, analyze=True, vacuum=True)
            since = await side.now()
            with quiet():
                side.expect(jobs)
                async with side.worker(100):
                    await side.enough()
            query = "select count(*), extract(epoch from max(finished_at) - min(started_at))::float8"
            done, seconds = await reader.fetchrow(f"{query} from flowrun.finished where started_at >= $1", since)
            reader.terminate()
        return {"rate": done / seconds}

    async def _fill(self) -> None:
        """Finished jobs by SQL: a hundred times as fast as by doing them."""
        side = FlowrunSide(self._database)
        async with side.opened():
            pass
        connection = await asyncpg.connect(self._database)
        part = 500_000
        for at in range(0, self.finished, part):
            last = min(at + part, self.finished)
            await connection.execute(_JOBS, at + 1, last)
            await connection.execute(_FINISHED, at + 1, last)
        connection.terminate()

    async def _fill_up(self, side: FlowrunSide, reader: Any) -> None:
        missing = self.ready - await reader.fetchval("select count(*) from flowrun.ready")
        for at in range(0, missing, PART):
            await side.app.dispatch_many([side.noop.job(order_id=1) for _ in range(min(PART, missing - at))])
