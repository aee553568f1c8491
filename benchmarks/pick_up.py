"""Both ends of a pick-up. As a program, the worker: `python -m benchmarks.pick_up SIDE DSN JOBS`.

It says ``ready``, and when it has run so many jobs, how many nanoseconds each had been under way.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import servers
from benchmarks.floor import store, worker
from benchmarks.work import flat
from flowrun import Flowrun

Dispatch = Callable[[int], Awaitable[Any]]
"""A job, told when its dispatch began."""
Load = Callable[[int, float], Awaitable[None]]
"""So many jobs at once that take so many seconds each."""


async def all_of(taken: list[int], jobs: int) -> list[int]:
    """Wait until ``jobs`` were taken."""
    while len(taken) < jobs:
        await asyncio.sleep(0.01)
    return taken


def _flowrun(dsn: str, taken: list[int]) -> tuple[Flowrun, Any, Any]:
    app = Flowrun(dsn)

    @app.handler("pick_up")
    async def pick_up(sent: int) -> None:
        taken.append(time.monotonic_ns() - sent)

    @app.handler("slow")
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    return app, pick_up, slow


async def _flowrun_dispatcher(dsn: str, stack: AsyncExitStack) -> tuple[Dispatch, Load]:
    app, pick_up, slow = _flowrun(dsn, [])
    await stack.enter_async_context(app)
    await app.migrate()
    return _dispatches(app, pick_up, slow)


async def _flowrun_both(dsn: str, taken: list[int], stack: AsyncExitStack) -> tuple[Dispatch, Load]:
    app, pick_up, slow = _flowrun(dsn, taken)
    async with app:
        await app.migrate()
    await stack.enter_async_context(app.worker(concurrency=100))
    return _dispatches(app, pick_up, slow)


def _dispatches(app: Flowrun, pick_up: Any, slow: Any) -> tuple[Dispatch, Load]:
    async def load(jobs: int, seconds: float) -> None:
        await app.dispatch_many([slow.job(seconds=seconds) for _ in range(jobs)])

    return pick_up.dispatch, load


async def _flowrun_worker(dsn: str, taken: list[int], stack: AsyncExitStack) -> None:
    app, _, _ = _flowrun(dsn, taken)
    await stack.enter_async_context(app.worker(concurrency=100))


async def _floor_dispatcher(dsn: str, stack: AsyncExitStack) -> tuple[Dispatch, Load]:
    connection = await store.connect(dsn)
    stack.callback(connection.terminate)
    await connection.execute(store.SQL["schema"])
    statement = await connection.prepare(store.SQL["insert_notify"])

    async def dispatch(sent: int) -> None:
        await statement.fetch(store.new_ids(1)[0], store.QUEUE, "pick_up", b'{"sent":%d}' % sent, store.CHANNEL)

    async def load(jobs: int, seconds: float) -> None:
        slow = dict.fromkeys(range(jobs), "slow")
        await store.insert(connection, flat(jobs), slow, lambda _: b'{"seconds":%.3f}' % seconds)
        await connection.execute("select pg_notify($1, '')", store.CHANNEL)

    return dispatch, load


async def _floor_worker(dsn: str, taken: list[int], stack: AsyncExitStack) -> None:
    async def pick_up(sent: int) -> None:
        taken.append(time.monotonic_ns() - sent)

    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    await stack.enter_async_context(worker.running(dsn, {"pick_up": pick_up, "slow": slow}, 100))


async def _floor_both(dsn: str, taken: list[int], stack: AsyncExitStack) -> tuple[Dispatch, Load]:
    dispatches = await _floor_dispatcher(dsn, stack)
    await _floor_worker(dsn, taken, stack)
    return dispatches


BOTH = {"flowrun": _flowrun_both, "floor": _floor_both}
"""The dispatcher and the worker as one program has them: an app that dispatches to its own worker."""
DISPATCHERS = {"flowrun": _flowrun_dispatcher, "floor": _floor_dispatcher}
WORKERS = {"flowrun": _flowrun_worker, "floor": _floor_worker}


async def _main(side: str, dsn: str, jobs: int) -> None:
    taken: list[int] = []
    async with AsyncExitStack() as stack:
        await WORKERS[side](dsn, taken, stack)
        print("ready", flush=True)
        print(json.dumps(await all_of(taken, jobs)), flush=True)


if __name__ == "__main__":
    servers.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
