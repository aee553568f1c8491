"""Pick-up: from just before the dispatch is called to the handler's first line, by an idle worker and a busy one."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks import pick_up, servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.floor import store

GAP = 0.02
"""Seconds between two dispatches."""
WARM = 20
"""Jobs left out at the beginning."""
SLOW = 0.05
"""Seconds a job of the load takes; 20 of them each 20 ms keep 50 of a worker's 100 consumers busy."""
TOGETHER = 20


def contests(dsn: str, scale: float) -> list[Contest]:
    """With the worker in another process, idle and with half of its consumers busy, and in the dispatcher's own."""
    jobs = max(10, round(300 * scale))
    own = [
        Contest(
            f"pick-up in the same process, {jobs} jobs {apart}",
            partial(measure, dsn, jobs, "flowrun", True, False, gap),
            partial(_commits, dsn, jobs, gap),
            [Figure("p50", "ms", "p50", goal=goal), Figure("p99", "ms", "p99")],
            against="one row's commit",
        )
        for apart, gap, goal in (
            (f"{GAP * 1e3:.0f} ms apart", GAP, Goal(0.5, of_flowrun=True)),
            ("one after the other", 0.0, None),
        )
    ]
    return [
        *own,
        *(
            Contest(
                f"pick-up {where}, {jobs} jobs {GAP * 1e3:.0f} ms apart",
                partial(measure, dsn, jobs, "flowrun", own_process, loaded),
                partial(measure, dsn, jobs, "floor", own_process, loaded),
                [Figure("p50", "ms", "p50", goal=goal), Figure("p99", "ms", "p99", goal=worst)],
            )
            for where, own_process, loaded, goal, worst in (
                ("by another process", False, False, Goal(1.0), Goal(5.0, of_flowrun=True)),
                ("by another process at half load", False, True, None, None),
                ("in the same process, beside insert and claim", True, False, None, None),
            )
        ),
    ]


async def measure(
    dsn: str, jobs: int, side: str, own_process: bool, loaded: bool, gap: float = GAP
) -> dict[str, float]:
    """Milliseconds from the dispatch to the handler, ``gap`` seconds between two dispatches."""
    async with servers.fresh_database(dsn) as database, AsyncExitStack() as stack:
        seen: Callable[[], Awaitable[list[int]]]
        if own_process:
            taken: list[int] = []
            dispatch, load = await pick_up.BOTH[side](database, taken, stack)
            seen = partial(pick_up.all_of, taken, jobs + WARM)
        else:
            dispatch, load = await pick_up.DISPATCHERS[side](database, stack)
            seen = await _other_process(side, database, jobs + WARM, stack)
        for _ in range(jobs + WARM):
            await dispatch(time.monotonic_ns())
            await asyncio.sleep(gap / 2)
            if loaded:
                await load(TOGETHER, SLOW)
            await asyncio.sleep(gap / 2)
        times = sorted(nanoseconds / 1e6 for nanoseconds in (await seen())[WARM:])
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


async def _commits(dsn: str, jobs: int, gap: float = GAP) -> dict[str, float]:
    """What a row costs that is durable: nothing that is stored before it runs can start sooner."""
    async with servers.fresh_database(dsn) as database:
        connection = await store.connect(database)
        await connection.execute(store.SQL["schema"])
        statement = await connection.prepare("insert into floor.commits (id, result) values ($1, $2)")
        times = []
        for id in store.new_ids(jobs + WARM):
            begun = time.monotonic_ns()
            await statement.fetch(id, b'{"sent":1}')
            times.append((time.monotonic_ns() - begun) / 1e6)
            await asyncio.sleep(gap)
        connection.terminate()
    times = sorted(times[WARM:])
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


async def _other_process(side: str, dsn: str, jobs: int, stack: AsyncExitStack) -> Callable[[], Awaitable[list[int]]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.pick_up", side, dsn, str(jobs),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(end)
    assert process.stdout is not None
    if await process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the worker process of {side} did not start")

    async def seen() -> list[int]:
        line = await process.stdout.readline()
        return [int(nanoseconds) for nanoseconds in json.loads(line)]

    return seen
