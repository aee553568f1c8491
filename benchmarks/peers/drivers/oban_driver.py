"""Oban for Python, the open-source package: psycopg, uvloop, one queue with a limit of 1,000, pool of 10."""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool
from slot import PAUSE, WARM_UP, Slot, asked, now

LIMIT = 1_000
PART = 5_000

slot: Slot
pool: AsyncConnectionPool
oban: Oban


@worker()
class Noop:
    async def process(self, job) -> None:
        slot.hit()


@worker()
class Late:
    async def process(self, job) -> None:
        slot.hit(job.args["sent"])


@worker()
class Chain:
    async def process(self, job) -> None:
        slot.hit()
        if job.args["left"] > 1:
            await oban.enqueue(Chain.new({"left": job.args["left"] - 1}))
        else:
            slot.end()


@worker()
class Root:
    async def process(self, job) -> None:
        async with pool.connection() as connection:
            await connection.execute("insert into joins values (1, %s)", (job.args["width"],))
        await oban.enqueue_many([Child.new() for _ in range(job.args["width"])])


@worker()
class Child:
    async def process(self, job) -> None:
        count_down = "update joins set left_over = left_over - 1 where id = 1 returning left_over"
        async with pool.connection() as connection:
            row = await (await connection.execute(count_down)).fetchone()
        if row[0] == 0:
            await oban.enqueue(Join.new())


@worker()
class Join:
    async def process(self, job) -> None:
        slot.end()


async def setup() -> None:
    await install(pool)
    async with pool.connection() as connection:
        await connection.execute("create table joins (id integer primary key, left_over integer)")


async def work() -> None:
    global oban, slot
    slot = Slot()
    oban = Oban(pool=pool, queues={"default": LIMIT})
    async with oban:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await asyncio.sleep(0.3)
        print("READY", flush=True)
        await stop.wait()


async def dispatch(jobs: int) -> None:
    start = now()
    for at in range(0, jobs, PART):
        await oban.enqueue_many([Noop.new() for _ in range(min(PART, jobs - at))])
    print((now() - start) / 1e9)


async def chains(number: int, length: int) -> None:
    await oban.enqueue_many([Chain.new({"left": length}) for _ in range(number)])


async def main() -> None:
    global oban, pool
    verb, numbers = asked()
    async with AsyncConnectionPool(os.environ["DSN"], min_size=2, max_size=10, open=False) as pool:
        if verb == "setup":
            await setup()
            return
        if verb == "worker":
            await work()
            return
        oban = Oban(pool=pool)
        if verb in {"chains", "fan"}:
            await chains(*WARM_UP)
            await asyncio.sleep(PAUSE)
        start = now()
        if verb == "dispatch":
            await dispatch(*numbers)
        elif verb == "latency":
            for _ in range(numbers[0]):
                await oban.enqueue(Late.new({"sent": now()}))
                await asyncio.sleep(numbers[1] / 1e3)
        elif verb == "chains":
            await chains(*numbers)
            print(start)
        elif verb == "fan":
            await oban.enqueue(Root.new({"width": numbers[0]}))
            print(start)


uvloop.run(main())
