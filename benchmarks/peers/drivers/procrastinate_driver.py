"""Procrastinate: psycopg, uvloop, concurrency 10 with a pool of 14.

Its worker clears the wake-up after each fetch, so a notification that comes meanwhile is lost and the poll decides:
with its usual 5 s a chain of 100 took 95 s. So it polls each 50 ms.
"""

from __future__ import annotations

import asyncio
import os

import uvloop
from procrastinate import App, PsycopgConnector
from slot import PAUSE, WARM_UP, Slot, asked, now

CONCURRENCY = 10
PART = 5_000

app = App(connector=PsycopgConnector(conninfo=os.environ["DSN"], min_size=4, max_size=CONCURRENCY + 4))
slot: Slot


@app.task(name="noop")
async def noop() -> None:
    slot.hit()


@app.task(name="late")
async def late(sent: int) -> None:
    slot.hit(sent)


@app.task(name="chain")
async def chain(left: int) -> None:
    slot.hit()
    if left > 1:
        await chain.defer_async(left=left - 1)
    else:
        slot.end()


@app.task(name="root")
async def root(width: int) -> None:
    await app.connector.execute_query_async("insert into joins values (1, %(width)s)", width=width)
    await child.batch_defer_async(*[{} for _ in range(width)])


@app.task(name="child")
async def child() -> None:
    count_down = "update joins set left_over = left_over - 1 where id = 1 returning left_over"
    row = await app.connector.execute_query_one_async(count_down)
    if row["left_over"] == 0:
        await join.defer_async()


@app.task(name="join")
async def join() -> None:
    slot.end()


async def work() -> None:
    global slot
    slot = Slot()
    asyncio.get_running_loop().call_later(0.5, lambda: print("READY", flush=True))
    await app.run_worker_async(concurrency=CONCURRENCY, wait=True, fetch_job_polling_interval=0.05)


async def dispatch(jobs: int) -> None:
    start = now()
    for at in range(0, jobs, PART):
        await noop.batch_defer_async(*[{} for _ in range(min(PART, jobs - at))])
    print((now() - start) / 1e9)


async def chains(number: int, length: int) -> None:
    await chain.batch_defer_async(*[{"left": length} for _ in range(number)])


async def main() -> None:
    verb, numbers = asked()
    async with app.open_async():
        if verb in {"chains", "fan"}:
            await chains(*WARM_UP)
            await asyncio.sleep(PAUSE)
        start = now()
        if verb == "setup":
            await app.schema_manager.apply_schema_async()
            table = "create table joins (id integer primary key, left_over integer)"
            await app.connector.execute_query_async(table)
        elif verb == "worker":
            await work()
        elif verb == "dispatch":
            await dispatch(*numbers)
        elif verb == "latency":
            for _ in range(numbers[0]):
                await late.defer_async(sent=now())
                await asyncio.sleep(numbers[1] / 1e3)
        elif verb == "chains":
            await chains(*numbers)
            print(start)
        elif verb == "fan":
            await root.defer_async(width=numbers[0])
            print(start)


uvloop.run(main())
