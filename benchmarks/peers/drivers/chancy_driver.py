"""Chancy: async executor, concurrency 200, eager polling; flows by its workflow plugin.

Its updates go out each 10 ms (a second by default), and the leader, whom flows wait for, looks each second (60 by
default).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import uvloop
from chancy import Chancy, Queue, Worker, job
from chancy.plugins.leadership import Leadership
from chancy.plugins.workflow import Sequence, Workflow, WorkflowPlugin
from slot import PAUSE, WARM_UP, Slot, asked, now

CONCURRENCY = 200
PART = 5_000

slot: Slot
log = logging.getLogger("chancy.bench")
log.setLevel(logging.ERROR)


@job()
async def noop() -> None:
    slot.hit()


@job()
async def late(*, sent: int) -> None:
    slot.hit(sent)


@job()
async def last() -> None:
    slot.hit()
    slot.end()


@job()
async def join() -> None:
    slot.end()


async def setup(app: Chancy) -> None:
    await app.migrate()
    executor = Chancy.Executor.Async
    queue = Queue(name="default", executor=executor, concurrency=CONCURRENCY, polling_interval=1, eager_polling=True)
    await app.declare(queue, upsert=True)


async def work(app: Chancy) -> None:
    global slot
    slot = Slot()
    worker = Worker(app, register_signal_handlers=False)
    worker.send_outgoing_interval = 0.01
    async with worker:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.call_later(2.5, lambda: print("READY", flush=True))
        await stop.wait()
        os._exit(0)


async def dispatch(app: Chancy, jobs: int) -> None:
    start = now()
    async for _ in app.push_many([noop.job] * jobs, batch_size=PART):
        pass
    print((now() - start) / 1e9)


async def latency(app: Chancy, jobs: int, gap: int) -> None:
    for _ in range(jobs):
        await app.push(late.job.with_kwargs(sent=now()))
        await asyncio.sleep(gap / 1e3)


async def chains(app: Chancy, number: int, length: int) -> None:
    start = now()
    for chain in range(number):
        await Sequence(f"chain-{chain}", [noop] * (length - 1) + [last]).push(app)
    print(start)


async def fan(app: Chancy, width: int) -> None:
    start = now()
    flow = Workflow("fan").add("root", noop)
    names = [f"child-{number}" for number in range(width)]
    for name in names:
        flow.add(name, noop, ["root"])
    flow.add("join", join, names)
    await WorkflowPlugin.push(app, flow)
    print(start)


async def main() -> None:
    verb, numbers = asked()
    plugins = [Leadership(poll_interval=1, timeout=10)]
    async with Chancy(os.environ["DSN"], plugins=plugins, max_connection_pool_size=20, log=log) as app:
        if verb in {"chains", "fan"}:
            await chains(app, *WARM_UP)
            await asyncio.sleep(4 * PAUSE)  # its leader looks each second
        verbs = {"setup": setup, "worker": work, "dispatch": dispatch, "latency": latency, "chains": chains, "fan": fan}
        await verbs[verb](app, *numbers)


uvloop.run(main())
