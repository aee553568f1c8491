"""A thousand dispatchers at once, and a deep queue: nobody is refused, no lease is lost, memory stays where it is."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun import Flowrun
from tests.chaos import load

pytestmark = pytest.mark.timeout(180)


async def test_a_thousand_dispatchers_at_once(dsn: str) -> None:
    answers = await load.serve(dsn, 1000, 1)
    assert answers.refused == 0
    assert len(answers.seconds) == answers.ran == 1000
    assert answers.least_lease > 0, "the heartbeats were starved"


async def test_a_worker_takes_no_more_than_it_can_run(dsn: str) -> None:
    before, after, ran = await load.deep_queue(dsn, 12_000, 60.0)
    assert ran == 12_000
    assert after - before < 64 * 2**20


async def test_a_worker_that_cannot_settle_stops_claiming(dsn: str, connection: asyncpg.Connection) -> None:
    """What is run and not settled is lost with the worker, and fills its memory: there is a bound to it."""
    app = Flowrun(dsn, lease=20.0)
    ran = 0

    @app.handler
    async def count() -> None:
        nonlocal ran
        ran += 1

    async with app:
        await app.dispatch_many([count.job() for _ in range(12_000)])
        async with app.worker(concurrency=50):
            async with connection.transaction():
                await connection.execute("lock table flowrun.finished in share mode")
                still, before = 0, -1
                while still < 20:
                    still, before = (still + 1 if ran == before and ran else 0), ran
                    await asyncio.sleep(0.1)
                assert 0 < ran < 8_000
            while await connection.fetchval("select count(*) from flowrun.finished") < 12_000:
                await asyncio.sleep(0.05)
    assert ran == 12_000
