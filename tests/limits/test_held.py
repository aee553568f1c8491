"""Slots are held by workers: what ends makes room for what is claimed already, and nobody holds what others need."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.worker import upkeep


class Count:
    """How many run at once, by name, and the most that ever did."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def enter(self, *names: str) -> None:
        for name in names:
            self.now[name] = now = self.now.get(name, 0) + 1
            self.most[name] = max(now, self.most.get(name, 0))

    def leave(self, *names: str) -> None:
        for name in names:
            self.now[name] -= 1


@pytest.mark.parametrize("workers", [1, 4])
async def test_fast_jobs_are_exact_and_need_few_claims(app: Flowrun, connection: asyncpg.Connection, workers) -> None:
    """Limits of a key, of a queue, of both, and two numbers for one key; most jobs begin without anybody being asked."""
    app.queue("narrow", concurrency=6)
    count = Count()

    @app.handler("fast")
    async def fast(names: list[str], n: int) -> None:
        count.enter(*names)
        await asyncio.sleep(0 if n % 3 else 0.002)
        count.leave(*names)

    def job(n: int, *names: str, **options: object):
        return app.job("fast", {"names": names, "n": n}, **options)

    specs = [job(n, "key", limit=("key", 5)) for n in range(1600)]  # more than one look around takes
    specs += [job(n, "narrow", queue="narrow") for n in range(1600)]  # more than one look around takes
    specs += [job(n, "narrow", "inner", queue="narrow", limit=("inner", 2)) for n in range(200)]
    specs += [job(n, "two", limit=("two", 2)) for n in range(100)]
    specs += [job(n, "two", limit=("two", 4)) for n in range(100)]
    specs += [job(n, "fair", fair_key=f"f{n % 3}", limit=("fair", 4)) for n in range(200)]
    async with app:
        runs = await app.dispatch_many(specs)
        async with AsyncExitStack() as stack:
            for _ in range(workers):
                await stack.enter_async_context(app.worker(concurrency=20, queues=["default", "narrow"]))
            for run in runs:
                await run.result(timeout=60)
        claims = await connection.fetchval("select claims from flowrun.throttle")
    limits = {"key": 5, "narrow": 6, "inner": 2, "two": 4, "fair": 4}
    assert {name: most for name, most in count.most.items() if most > limits[name]} == {}
    assert count.most["key"] == 5
    assert count.most["narrow"] == 6
    assert claims < len(specs) / 10
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_what_others_wait_for_is_given_up(app: Flowrun, dsn: str, until) -> None:
    """A worker with enough to do under a limit lets in another one's jobs, which it does not serve."""
    ended: list[str] = []
    other = Flowrun(dsn)

    @app.handler("mine")
    async def mine() -> None:
        await asyncio.sleep(0.005)
        ended.append("mine")

    @other.handler("yours", queue="yours")
    async def yours() -> None:
        ended.append("yours")

    async with app, other:
        runs = await app.dispatch_many([app.job("mine", limit=("k", 2)) for _ in range(1500)])
        async with app.worker(concurrency=10, queues=["default"]):
            await until(lambda: len(ended) > 50)
            run = await other.job("yours", limit=("k", 2)).dispatch()
            async with other.worker(concurrency=10, queues=["yours"]):
                await run.result(timeout=30)
                before = len(ended)
        assert before < len(runs)


async def test_slots_without_jobs_are_given_back(app: Flowrun, dsn: str, until) -> None:
    """One job of three goes on: the other two slots are not its worker's any more."""
    release = asyncio.Event()
    other = Flowrun(dsn)
    ended: list[str] = []

    @app.handler("mine")
    async def mine(n: int) -> None:
        if n == 0:
            await release.wait()

    @other.handler("yours", queue="yours")
    async def yours() -> None:
        ended.append("yours")

    async with app, other:
        runs = await app.dispatch_many([app.job("mine", {"n": n}, limit=("k", 3)) for n in range(3)])
        async with app.worker(concurrency=10, queues=["default"]), other.worker(concurrency=10, queues=["yours"]):
            for run in runs[1:]:
                await run.result(timeout=20)
            for run in await other.dispatch_many([other.job("yours", limit=("k", 3)) for _ in range(4)]):
                await run.result(timeout=20)
            assert len(ended) == 4
            release.set()
            await runs[0].result(timeout=20)


async def test_a_limit_that_is_lowered_counts_for_what_was_claimed_before(app: Flowrun, until) -> None:
    app.queue("narrow", concurrency=10)
    count = Count()
    ended = 0

    @app.handler("job", queue="narrow")
    async def job() -> None:
        nonlocal ended
        count.enter("narrow")
        await asyncio.sleep(0.002)
        count.leave("narrow")
        ended += 1

    async with app:
        runs = await app.dispatch_many([app.job("job") for _ in range(3000)])
        async with app.worker(concurrency=20, queues=["narrow"]), app.worker(concurrency=20, queues=["narrow"]):
            await until(lambda: ended > 300)
            await app.queues.put("narrow", concurrency=2)
            at = ended
            await until(lambda: ended > at + 300)
            count.most.clear()
            at = ended
            await until(lambda: ended > at + 100)
            assert count.most["narrow"] == 2
            await app.queues.put("narrow", concurrency=20)
            for run in runs:
                await run.result(timeout=60)
            assert count.most["narrow"] > 2


async def test_what_waits_long_behind_a_slot_is_handed_back(app: Flowrun, connection, until, monkeypatch) -> None:
    """Claimed ahead of many fast jobs, and then one takes long: others may be more urgent by then."""
    monkeypatch.setattr(upkeep, "SITTING", 0.05)
    release = asyncio.Event()
    order: list[int] = []

    @app.handler("job")
    async def job(n: int) -> None:
        order.append(n)
        await (release.wait() if n == 300 else asyncio.sleep(0.001))

    async with app:
        runs = await app.dispatch_many([app.job("job", {"n": n}, limit=("k", 1)) for n in range(400)])
        async with app.worker(concurrency=5):
            await until(lambda: len(order) == 301)

            async def handed_back() -> bool:
                return await connection.fetchval("select count(*) from flowrun.ready") == 99

            await until(handed_back)
            runs.append(await app.job("job", {"n": 1000}, limit=("k", 1), priority=0).dispatch())
            release.set()
            for run in runs:
                await run.result(timeout=30)
    assert order == [*range(301), 1000, *range(301, 400)]
