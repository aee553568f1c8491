"""Limits are exact: eight workers in two processes, thousands of jobs, and again with a process killed in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from tests.limits.crowd import MOST, SPANS, make_app
from tests.programs import started, working

PROGRAM = "tests.limits.crowd"
Most = Callable[[str], Any]


@pytest.fixture
async def most(connection: asyncpg.Connection) -> Most:
    await connection.execute(SPANS)

    async def of(what: str) -> int:
        return await connection.fetchval(MOST.format(what=what))

    return of


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
    async with working(*[await started(PROGRAM, dsn, "0") for _ in range(2)]):
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
    dies = await started(PROGRAM, dsn, "1")
    async with working(dies, await started(PROGRAM, dsn, "0")):
        count = await dispatch(dsn, 400)
        await asyncio.wait_for(dies.wait(), 30)

        async def done() -> bool:
            return await connection.fetchval("select count(*) from flowrun.finished where outcome = 1") == count

        await until(done, 60)
    assert await connection.fetchval("select count(distinct job) from spans where ended is not null") == count
    assert await most("queue = 'narrow'") <= 7
    assert await most("type = 'few'") <= 3
    for key in range(20):
        assert await most(f"key = 'k{key}'") <= 1 + key // 5, key
