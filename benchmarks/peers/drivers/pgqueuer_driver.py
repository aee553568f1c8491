"""PgQueuer: asyncpg, uvloop, batches of 500; the pool driver, so that settling, heartbeats and claims overlap."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries
from slot import PAUSE, WARM_UP, Slot, asked, now

DSN = os.environ["DSN"]
BATCH = 500
PART = 10_000


async def setup() -> None:
    connection = await asyncpg.connect(DSN)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.execute("create table joins (id integer primary key, left_over integer)")
    await connection.close()


async def work() -> None:
    slot = Slot()
    pool = await asyncpg.create_pool(DSN, min_size=4, max_size=8)
    app = PgQueuer.from_asyncpg_pool(pool)
    queries = Queries(AsyncpgPoolDriver(pool))

    @app.entrypoint("noop")
    async def noop(job) -> None:
        slot.hit()

    @app.entrypoint("late")
    async def late(job) -> None:
        slot.hit(int(job.payload))

    @app.entrypoint("chain")
    async def chain(job) -> None:
        left = int(job.payload)
        slot.hit()
        if left > 1:
            await queries.enqueue("chain", str(left - 1).encode())
        else:
            slot.end()

    @app.entrypoint("root")
    async def root(job) -> None:
        width = int(job.payload)
        await pool.execute("insert into joins values (1, $1)", width)
        await queries.enqueue(["child"] * width, [b"1"] * width, [0] * width)

    @app.entrypoint("child")
    async def child(job) -> None:
        count_down = "update joins set left_over = left_over - 1 where id = 1 returning left_over"
        if await pool.fetchval(count_down) == 0:
            await queries.enqueue("join", b"1")

    @app.entrypoint("join")
    async def join(job) -> None:
        slot.end()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, app.shutdown.set)
    loop.call_later(0.5, lambda: print("READY", flush=True))
    await app.run(batch_size=BATCH)


async def chains(queries: Queries, number: int, length: int) -> None:
    await queries.enqueue(["chain"] * number, [str(length).encode()] * number, [0] * number)


async def main() -> None:
    verb, numbers = asked()
    if verb == "setup":
        await setup()
        return
    if verb == "worker":
        await work()
        return
    connection = await asyncpg.connect(DSN)
    queries = Queries(AsyncpgDriver(connection))
    if verb in {"chains", "fan"}:
        await chains(queries, *WARM_UP)
        await asyncio.sleep(PAUSE)
    start = now()
    if verb == "dispatch":
        for at in range(0, numbers[0], PART):
            size = min(PART, numbers[0] - at)
            await queries.enqueue(["noop"] * size, [b"{}"] * size, [0] * size)
        print((now() - start) / 1e9)
    elif verb == "latency":
        for _ in range(numbers[0]):
            await queries.enqueue("late", str(now()).encode())
            await asyncio.sleep(numbers[1] / 1e3)
    elif verb == "chains":
        await chains(queries, *numbers)
        print(start)
    elif verb == "fan":
        await queries.enqueue("root", str(numbers[0]).encode())
        print(start)
    await connection.close()


uvloop.run(main())
