"""The floor: hand-written SQL and the thinnest worker. See benchmarks/floor/."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from slot import PAUSE, WARM_UP, Slot, asked, now

from benchmarks import servers
from benchmarks.floor import store, worker
from benchmarks.work import Work, fan, flat

DSN = os.environ["DSN"]
NOTIFY = "select pg_notify($1, '')"


async def work() -> None:
    """A worker until it is told to end."""
    slot = Slot()

    async def noop(order_id: int) -> None:
        slot.hit()

    async def late(sent: int) -> None:
        slot.hit(sent)

    async def last(order_id: int) -> None:
        slot.hit()
        slot.end()

    async def join(order_id: int) -> None:
        slot.end()

    async with worker.running(DSN, {"noop": noop, "late": late, "last": last, "join": join}, 100):
        print("READY", flush=True)
        await servers.terminated()


async def latency(connection: Any, jobs: int, gap: int) -> None:
    """One by one, the notification in the same commit."""
    statement = await connection.prepare(store.SQL["insert_notify"])
    for _ in range(jobs):
        await statement.fetch(store.new_ids(1)[0], store.QUEUE, "late", b'{"sent":%d}' % now(), store.CHANNEL)
        await asyncio.sleep(gap / 1e3)


async def flow(connection: Any, work: Work, last: str, ends: set[int]) -> None:
    """Store a flow whose ``ends`` are of type ``last``; prints when that began."""
    start = now()
    await store.insert(connection, work, dict.fromkeys(ends, last))
    await connection.execute(NOTIFY, store.CHANNEL)
    print(start)


async def chains(connection: Any, number: int, length: int) -> None:
    """Chains side by side."""
    edges = [(at, at + 1) for at in range(number * length) if (at + 1) % length]
    await flow(connection, Work(number * length, edges), "last", set(range(length - 1, number * length, length)))


async def main() -> None:
    """Do what is asked."""
    verb, numbers = asked()
    if verb == "worker":
        await work()
        return
    connection = await store.connect(DSN)
    if verb == "setup":
        await connection.execute(store.SQL["schema"])
    elif verb == "dispatch":
        start = now()
        await store.insert(connection, flat(numbers[0]))
        print((now() - start) / 1e9)
    elif verb == "latency":
        await latency(connection, *numbers)
    else:
        await chains(connection, *WARM_UP)
        await asyncio.sleep(PAUSE)
        if verb == "chains":
            await chains(connection, *numbers)
        else:
            await flow(connection, fan(numbers[0]), "join", {numbers[0] + 1})
    await connection.close()


servers.run(main())
