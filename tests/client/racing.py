"""One of two processes that dispatch with the same keys at the same moment: four workers and twenty-five dispatchers.

    python -m tests.client.racing DSN

It says "working", waits for a line, dispatches, says "dispatched", and works on until its input ends. An event is written
down before the dispatch that is to deal with it; a debounced job deals with all that it sees.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from flowrun import Flowrun

DISPATCHERS, TURNS, KEYS = 25, 4, 5
TABLES = """
create table if not exists events (id bigserial primary key, key text not null, seen boolean not null default false);
create table if not exists ran (type text, key text)
"""


def make_app(dsn: str, pool: Any = None) -> Flowrun:
    app = Flowrun(dsn, lease=5.0, poll=1.0)

    async def note(type: str, key: str) -> None:
        await pool.execute("insert into ran values ($1, $2)", type, key)

    @app.handler
    async def unique(key: str) -> None:
        await note("unique", key)

    @app.handler
    async def throttled(key: str) -> None:
        await note("throttled", key)

    @app.handler
    async def patient(key: str, event: int) -> None:
        await note("patient", key)

    @app.handler
    async def debounced(key: str) -> None:
        await note("debounced", key)
        await pool.execute("update events set seen = true where key = $1 and not seen", key)

    return app


async def dispatch(app: Flowrun, pool: Any, number: int) -> None:
    for turn in range(TURNS):
        key = f"k{(number + turn) % KEYS}"
        await app.job("unique", {"key": key}, key=key).dispatch()
        await app.job("throttled", {"key": key}, throttle=(key, 3600.0)).dispatch()
        event = await pool.fetchval("insert into events (key) values ($1) returning id", key)
        await app.job("patient", {"key": key, "event": event}, debounce=(key, 3600.0)).dispatch()
        await app.job("debounced", {"key": key}, debounce=(key, 0.02)).dispatch()


async def main(dsn: str) -> None:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=10))
        app = make_app(dsn, pool)
        await stack.enter_async_context(app)
        for _ in range(4):
            await stack.enter_async_context(app.worker(concurrency=4))
        print("working", flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)
        await asyncio.gather(*(dispatch(app, pool, number) for number in range(DISPATCHERS)))
        print("dispatched", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
