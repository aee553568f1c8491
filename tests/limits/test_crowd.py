"""Limits are exact: eight workers in two processes, thousands of jobs, and again with a process killed in the middle."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.limits.crowd import MOST, SPANS, make_app

Most = Callable[[str], Any]


@pytest.fixture
async def most(connection: asyncpg.Connection) -> Most:
    await connection.execute(SPANS)

    async def of(what: str) -> int:
        return await connection.fetchval(MOST.format(what=what))

    return of


@asynccontextmanager
async def crowd(dsn: str, *, kill: bool = False) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.limits.crowd", dsn, str(int(kill and number == 0)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 30) == b"working\n"
        yield processes
    finally:
        for process in processes:
            if process.returncode is None and process.stdin is not None:
                process.stdin.close()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()


async def dispatch(dsn: str, each: int) -> int:
    app = make_app(dsn, [])
    specs = [app.job("plain", queue="narrow") for _ in range(each)]
    specs += [app.job("keyed", {"key": f"k{n % 20}"}, limit=(f"k{n % 20}", 1 + n % 20 // 5)) for n in range(each)]
    specs += [app.job("few", limit=3) for _ in range(each // 4)]
    specs += [app.job("rated", queue="slow") for _ in range(160)]
    async with app:
        await app.dispatch_many(specs)
    return len(specs)


async def test_limits_are_exact(dsn, connection, most, until) -> None:
    async with crowd(dsn):
        count = await dispatch(dsn, 1200)

        async def done() -> bool:
            return await connection.fetchval("select count(*) from flowrun.finished where outcome = 1") == count

        await until(done, 60)
    assert await connection.fetchval("select count(*) from spans") == count
    assert await connection.fetchval("select count(distinct job) from spans") == count
    assert await most("queue = 'narrow'") == 7
    assert await most("type = 'few'") == 3
    reached = [await most(f"key = 'k{key}'") for key in range(20)]
    assert all(found <= 1 + key // 5 for key, found in enumerate(reached)), reached
    assert max(reached) > 1
    worst = await connection.fetchval(
        "select max(near) from (select count(*) over (order by f.started_at range between current row and "
        "'0.49 s' following) as near from flowrun.finished f join spans on spans.job = f.id and type = 'rated') t"
    )
    assert worst <= 40
    assert await connection.fetchval("select count(distinct pid) from spans") == 2
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_slots_die_with_their_worker(dsn, connection, most, until) -> None:
    async with crowd(dsn, kill=True) as processes:
        count = await dispatch(dsn, 400)
        await asyncio.wait_for(processes[0].wait(), 30)

        async def done() -> bool:
            return await connection.fetchval("select count(*) from flowrun.finished where outcome = 1") == count

        await until(done, 60)
    assert await connection.fetchval("select count(distinct job) from spans where ended is not null") == count
    assert await most("queue = 'narrow'") <= 7
    assert await most("type = 'few'") <= 3
    for key in range(20):
        assert await most(f"key = 'k{key}'") <= 1 + key // 5, key
