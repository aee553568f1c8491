"""`app.drain` and `app.testing`: work until nothing is runnable, time that passes when it is told to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from flowrun import ConfigurationError, Flowrun, JobFailed, backoff


async def test_drain_works_until_nothing_is_runnable(app: Flowrun) -> None:
    @app.handler(queue="elsewhere")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.handler(attempts=1)
    async def fail() -> None:
        raise ValueError("no")

    flow = app.flow("sum")
    first = flow.add(add.job(a=1, b=2))
    flow.add(add.job(a=first.result, b=4), name="second")
    async with app:
        run = await flow.dispatch()
        lone = await fail.dispatch()
        later = await add.job(a=1, b=1).options(delay=3600.0).dispatch()
        await app.queues.pause("paused")
        await add.job(a=1, b=1).options(queue="paused").dispatch()
        drained = await app.drain(timeout=20)
        assert (drained.succeeded, drained.failed, drained.jobs) == (2, 1, 3)
        assert await run.result(timeout=1) == 7
        assert (await lone.status()).state == "failed"
        assert (await later.status()).state == "scheduled"
        assert (await app.drain(timeout=20)).jobs == 0


async def test_drain_names_what_does_not_end(app: Flowrun) -> None:
    @app.handler
    async def endless() -> None:
        await asyncio.sleep(1000)

    async with app:
        await endless.dispatch()
        with pytest.raises(TimeoutError, match=r"after 1 s .*running: endless \(1\)"):
            await app.drain(timeout=1)


async def test_drain_beside_a_worker(app: Flowrun) -> None:
    @app.handler
    async def work() -> None: ...

    async with app.worker():
        runs = [await work.dispatch() for _ in range(5)]
        await app.drain(timeout=20)
        assert {(await run.status()).state for run in runs} == {"succeeded"}


async def test_time_passes_moment_by_moment(app: Flowrun) -> None:
    """Delays, backoff, a sleep and a gate, each at its time and in order."""
    seen: list[tuple[str, float]] = []

    def note(what: str) -> None:
        seen.append((what, round((t.now - start).total_seconds() / 60)))

    @app.handler(attempts=3, backoff=backoff.constant(600.0, jitter=0.0))
    async def flaky() -> str:
        note("flaky")
        if len([1 for what, _ in seen if what == "flaky"]) < 3:
            raise ValueError("again")
        return "done"

    @app.handler
    async def mark(what: str) -> None:
        note(what)

    async with app.testing(clock=datetime(2030, 1, 1, tzinfo=UTC)) as t:
        start = t.now
        assert abs(start - datetime(2030, 1, 1, tzinfo=UTC)) < timedelta(seconds=30)
        run = await flaky.job().options(delay=1800.0).dispatch()
        await mark.job(what="at").options(run_at=start + timedelta(minutes=45)).dispatch()
        flow = app.flow("slow")
        nap = flow.sleep(7200.0)
        gate = flow.wait_for("never", after=nap, timeout=3600.0)
        flow.add(mark.job(what="after"), after=gate.failed)
        slow = await flow.dispatch()
        assert seen == []
        await t.advance(4 * 3600)
        await mark.job(what="later").options(run_at=t.now + timedelta(minutes=10)).dispatch()
        await t.advance(5 * 60)
        assert await run.result(timeout=1) == "done"
        assert (await slow.status()).state != "running"
        assert seen == [("flaky", 30), ("flaky", 40), ("at", 45), ("flaky", 50), ("after", 180)]
        await t.advance(5 * 60)
        assert seen[-1][0] == "later"
        assert 250 <= seen[-1][1] <= 251


async def test_deadlines_timeouts_keys_and_schedules(app: Flowrun, until) -> None:
    began: list[datetime] = []
    ticked: list[datetime] = []

    @app.handler(timeout=300.0, attempts=1)
    async def slow() -> None:
        began.append(datetime.now(UTC))
        await asyncio.sleep(100_000)

    @app.handler
    async def quick() -> str:
        return "quick"

    @app.handler
    async def tick() -> None:
        ticked.append(t.now)

    async with app.testing(clock=datetime(2030, 5, 1, 12, 0, tzinfo=UTC)) as t:
        run = await slow.dispatch()
        await until(lambda: len(began) == 1)
        await t.advance(301)
        with pytest.raises(JobFailed, match="timed out|timeout|Timeout"):
            await run.result(timeout=10)

        flow = app.flow("late", deadline=3600.0)
        flow.wait_for("never")
        late = await flow.dispatch()
        first = await quick.job().options(key="k", key_ttl=1800.0).dispatch()
        await app.drain()
        assert (await quick.job().options(key="k", key_ttl=1800.0).dispatch()).id == first.id
        await t.advance(3601)
        assert (await late.status()).state == "cancelled"
        assert (await quick.job().options(key="k", key_ttl=1800.0).dispatch()).id != first.id

        await app.schedules.put("nightly", "0 3 * * *", tick.job(), timezone="UTC")
        await t.advance(2 * 86_400)
        assert [(one.day, one.hour, one.minute) for one in ticked] == [(2, 3, 0), (3, 3, 0)]


async def test_a_crash_point_cuts_the_link_and_nothing_is_lost(app: Flowrun, connection) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(600.0))
    async def flaky(n: int) -> int:
        raise ValueError("no")

    async with app.testing() as t:
        t.crash_at("settle.written")
        run = await flaky.dispatch(n=1)
        await t.advance(3600)
        with pytest.raises(JobFailed):
            await run.result(timeout=1)
        assert len(await run.attempts()) == 2
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_bad_values(app: Flowrun) -> None:
    with pytest.raises(ConfigurationError, match="clock must be"):
        async with app.testing(clock=datetime(2030, 1, 1)):  # noqa: DTZ001
            pass
    async with app.testing() as t:
        with pytest.raises(ConfigurationError, match="seconds must be"):
            await t.advance(-1)
        with pytest.raises(ConfigurationError, match=r"no point 'nowhere'.*settle\.written"):
            t.crash_at("nowhere")
