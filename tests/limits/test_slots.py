"""A slot is free as soon as its own job has ended, whatever was claimed together with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowrun import Flowrun
from flowrun.store import limits
from flowrun.store.statement import Statements, parts
from flowrun.worker import upkeep


@pytest.mark.parametrize("option", [{"limit": ("tenant", 3)}, {"queue": "narrow"}])
async def test_a_slot_is_free_when_its_job_has_ended(app: Flowrun, until, option) -> None:
    app.queue("narrow", concurrency=3)
    release = asyncio.Event()
    began: list[int] = []

    @app.handler("slot")
    async def slot(n: int) -> None:
        began.append(n)
        if n == 0:
            await release.wait()

    async with app:
        runs = await app.dispatch_many([app.job("slot", {"n": n}, **option) for n in range(9)])
        async with app.worker(concurrency=5, queues=["default", "narrow"]):
            for run in runs[1:]:
                await run.result(timeout=20)
            release.set()
            await runs[0].result(timeout=20)


async def test_many_blocked_lanes_are_not_looked_at_again_and_again(app: Flowrun, until, monkeypatch) -> None:
    """More lanes than one claim looks at, and none lets anything in."""
    release = asyncio.Event()
    inside: set[int] = set()
    claims = 0
    claim = limits.claim

    async def counted(*args: Any, **kwargs: Any) -> limits.Taken:
        nonlocal claims
        claims += 1
        return await claim(*args, **kwargs)

    monkeypatch.setattr(limits, "claim", counted)

    @app.handler("first")
    async def first(n: int) -> None:
        inside.add(n)
        await release.wait()

    async with app:
        runs = await app.dispatch_many([app.job("first", {"n": n % 70}, sequence=f"s{n % 70}") for n in range(140)])
        async with app.worker(concurrency=75):
            await until(lambda: len(inside) == 70)
            runs.append(await app.job("first", {"n": 0}, sequence="s0").dispatch())
            await asyncio.sleep(0.5)
            before = claims
            await asyncio.sleep(0.5)
            assert claims - before <= 25
            release.set()
            for run in runs:
                await run.wait(timeout=20)


@pytest.mark.parametrize("option", [{"limit": ("tenant", 3)}, {"queue": "narrow"}, {"sequence": "one"}])
async def test_slots_are_passed_on_without_a_claim(app: Flowrun, connection, until, monkeypatch, option) -> None:
    """One for one, in order of priority, and not to a queue that was paused."""
    app.queue("narrow", concurrency=3)
    order: list[int] = []
    running, most = 0, 0

    @app.handler("quick")
    async def quick(n: int) -> None:
        nonlocal running, most
        order.append(n)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with app:
        runs = await app.dispatch_many(
            [app.job("quick", {"n": n}, priority=5 + n // 150, **option) for n in range(300)]
        )
        async with app.worker(concurrency=20, queues=["default", "narrow"]):
            for run in runs:
                await run.result(timeout=30)
        claims = await connection.fetchval("select claims from flowrun.throttle")
        jobs = await connection.fetchval("select count(*) from flowrun.finished where outcome = 1")
    assert jobs == 300
    assert most == (1 if "sequence" in option else 3)
    assert claims < 80
    assert {n // 150 for n in order[:140]} == {0}
    if "sequence" in option:
        assert order == list(range(300))
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_pause_gives_back_what_no_consumer_has_begun(app: Flowrun, connection, until, monkeypatch) -> None:
    monkeypatch.setattr(upkeep, "SITTING", 1000.0)
    release = asyncio.Event()
    began: list[int] = []

    @app.handler("work")
    async def work(n: int) -> None:
        began.append(n)
        if n >= 500:
            await release.wait()

    async with app:
        runs = await app.dispatch_many([app.job("work", {"n": n}) for n in range(800)])
        async with app.worker(concurrency=1):
            await until(lambda: len(began) == 501)
            await app.queues.pause("default")

            async def given_back() -> bool:
                return await connection.fetchval("select count(*) from flowrun.ready") == 299

            await until(given_back)
            release.set()
            await runs[500].result(timeout=20)
            assert len(began) == 501
            await app.queues.resume("default")
            await runs[-1].wait(timeout=30)
        assert began == list(range(800))


def test_both_settles_are_one() -> None:
    """settle_limited.sql is settle.sql and additions: what stands in both is the same text."""
    plain, limited = (parts(Statements()[name]) for name in ("settle", "settle_limited"))
    assert limited.keys() - plain.keys() == {
        "rest", "ended", "candidate", "passed", "pass_lease", "pass_slots", "given",
    }  # fmt: skip
    assert {name for name, text in plain.items() if limited[name] != text} == {"done"}
