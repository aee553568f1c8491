"""One of several processes that work under limits: four workers, and a record of what ran when.

    python -m tests.limits.crowd DSN KILL

Each job enters one row when it begins and completes it when it ends, in a connection of its own, by the database's clock:
whether limits were kept is then a question in SQL. With ``KILL`` = 1 the process dies in the middle, by SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

import asyncpg

from flowrun import Flowrun, Job

SPANS = """
create table if not exists spans (
    job uuid, attempt integer, queue text, type text, key text, pid integer,
    began timestamptz not null default clock_timestamp(), ended timestamptz
)
"""
MOST = """
select coalesce(max(running), 0) from (
    select sum(step) over (order by at, step rows unbounded preceding) as running
    from (
        select began as at, 1 as step from spans where ended is not null and {what}
        union all
        select ended, -1 from spans where ended is not null and {what}
    ) change
) count
"""
"""The most that ran at the same moment."""


def make_app(dsn: str, pool: list[asyncpg.Pool]) -> Flowrun:
    """The handlers of all processes of the crowd."""
    app = Flowrun(dsn, lease=2.0, poll=1.0)
    app.queue("narrow", concurrency=7)
    app.queue("slow", rate=(40, 0.5))

    async def run(job: Job, key: str = "") -> None:
        async with pool[0].acquire() as connection:
            await connection.execute(
                "insert into spans (job, attempt, queue, type, key, pid) values ($1, $2, $3, $4, $5, $6)",
                job.id, job.attempt, job.queue, job.type, key, os.getpid(),
            )  # fmt: skip
            await asyncio.sleep(0.002)
            await connection.execute(
                "update spans set ended = clock_timestamp() where job = $1 and attempt = $2", job.id, job.attempt
            )

    @app.handler("plain", queue="narrow")
    async def plain(job: Job) -> None:
        await run(job)

    @app.handler("keyed")
    async def keyed(job: Job, key: str) -> None:
        await run(job, key)

    @app.handler("few", limit=3)
    async def few(job: Job) -> None:
        await run(job)

    @app.handler("rated", queue="slow")
    async def rated(job: Job) -> None:
        await run(job)

    return app


async def main(dsn: str, kill: bool) -> None:
    pool: list[asyncpg.Pool] = []
    app = make_app(dsn, pool)
    pool.append(await asyncpg.create_pool(dsn, min_size=1, max_size=40))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(pool[0].close)
        await stack.enter_async_context(app)
        for _ in range(4):
            await stack.enter_async_context(app.worker(concurrency=8))
        print("working", flush=True)
        loop = asyncio.get_running_loop()
        lines = loop.run_in_executor(None, sys.stdin.readline)
        if kill:
            async with pool[0].acquire() as connection:
                while await connection.fetchval("select count(*) from spans where pid = $1", os.getpid()) < 150:
                    await asyncio.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)
        await lines


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] == "1"))
