"""What has ended is kept as long as was said, and then goes with all that belongs to it; nothing that is open goes."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from uuid import UUID

import pytest

from flowrun import ConfigurationError, Flowrun, InvalidFlow, Job, NotFound, Pruned
from flowrun.client import wait
from flowrun.worker import pruner

DAY = 86_400.0
TABLES = ["jobs", "finished", "edges", "attempts", "steps", "progress", "cancels", "deadlines", "gates", "signals"]
TABLES += ["keys", "audit", "flows"]


@pytest.fixture
def kinds(app: Flowrun) -> None:
    @app.handler(attempts=1)
    async def fine(n: int = 0) -> int:
        return n

    @app.handler(attempts=1, queue="billing")
    async def broken() -> None:
        raise ValueError("broke")

    @app.handler(retention=60.0)
    async def probe() -> None: ...

    @app.handler(attempts=2, backoff=[0.0])
    async def rich(job: Job) -> None:
        await job.step("once", lambda: 1)
        await job.progress(0.5, "half")
        if job.attempt == 1:
            raise ValueError("again")


async def age(connection: Any, seconds: float) -> None:
    """Let it have ended so long ago, and have been dispatched even before: ids tell when, so they stay."""
    await connection.execute(
        """update flowrun.finished set finished_at = now() - make_interval(secs => $1),
            started_at = case when started_at is not null then now() - make_interval(secs => $1) end""",
        seconds,
    )


async def stored(connection: Any) -> dict[str, int]:
    found = {table: await connection.fetchval(f"select count(*) from flowrun.{table}") for table in TABLES}
    return {table: count for table, count in found.items() if count}


async def test_seven_days_and_thirty_for_failures(app, kinds, connection) -> None:
    async with app.worker(concurrency=2):
        good = await app.job("fine").dispatch()
        bad = await app.job("broken").dispatch()
        off = await app.job("fine", delay=600.0).dispatch()
        assert await off.cancel() == "cancelled"
        for run in (good, bad):
            await run.wait(timeout=20)
        await age(connection, 7 * DAY - 60)
        assert await app.prune() == Pruned(0, 0)
        await age(connection, 7 * DAY + 60)
        assert await app.prune(dry_run=True) == Pruned(2, 0)
        assert (await good.status()).state == "succeeded"
        assert await app.prune() == Pruned(2, 0)
        with pytest.raises(NotFound):
            await good.status()
        await age(connection, 30 * DAY + 60)
        assert [job.id for job in await app.failed.list()] == [bad.id]
        assert await app.prune() == Pruned(1, 0)
    assert await stored(connection) == {}


async def test_the_most_special_rule_counts(dsn, connection) -> None:
    app = Flowrun(dsn)
    app.retention({"succeeded": 100.0, "failed": math.inf})
    app.retention(50.0, queue="billing")
    app.retention({"succeeded": 30.0}, type="fine")
    app.retention(20.0, flow="order")

    @app.handler
    async def fine() -> None: ...

    @app.handler
    async def plain() -> None: ...

    @app.handler(attempts=1)
    async def broken() -> None:
        raise ValueError

    @app.handler(retention=10.0)
    async def probe() -> None: ...

    order = app.flow("order")
    order.add(probe.job())
    own = app.flow("order", retention=5.0)
    own.add(fine.job())
    specs = {
        "fine": (fine.job(), 30),
        "in a queue": (fine.job().options(queue="billing"), 30),
        "queue": (plain.job().options(queue="billing"), 50),
        "plain": (plain.job(), 100),
        "probe": (probe.job(), 10),
        "own": (probe.job().options(retention=70.0), 70),
        "own by outcome": (fine.job().options(retention={"failed": 1.0}), 30),
        "broken": (broken.job(), math.inf),
        "for ever": (fine.job().options(retention=math.inf), math.inf),
        "flow": (order, 20),
        "flow's own": (own, 5),
    }
    async with app.worker(concurrency=4, queues=["default", "billing"]):
        runs = {name: await spec.dispatch() for name, (spec, _) in specs.items()}
        for run in runs.values():
            await run.wait(timeout=20)
        for seconds in (5, 10, 20, 30, 50, 70, 100, 1e9):
            await age(connection, seconds + 1)
            await app.prune()
            left = {row[0] for row in await connection.fetch("select id from flowrun.jobs")}
            assert {name for name in runs if runs[name].id in left} == {
                name for name, (_, kept) in specs.items() if kept > seconds
            }
    rules = await connection.fetchval("select count(*) from flowrun.retention where scope = 'type' and name = 'probe'")
    assert rules == 4
    other = Flowrun(dsn)
    other.handler("probe")(lambda: None)
    async with other.worker():
        pass
    assert not await connection.fetchval(
        "select count(*) from flowrun.retention where scope = 'type' and name = 'probe'"
    )
    assert await connection.fetchval("select count(*) from flowrun.retention where scope = 'queue'") == 4


async def test_everything_that_belongs_to_it_goes(app, kinds, connection) -> None:
    async with app.worker(concurrency=4):
        flow = app.flow("order", key="k", deadline=600.0, tags=["eu"])
        inner = app.flow("inner")
        inner.add(app.job("rich"), name="rich")
        first = flow.add(inner, name="inside", compensate=app.job("fine"))
        ask = flow.wait_for("approved", after=first, timeout=500.0)
        flow.map(app.job("fine"), over=ask.result, argument="n")
        flow.add(app.job("broken", start_by=60.0), after=ask, optional=True)
        flow.on_finish(app.job("fine"))
        run = await flow.dispatch()
        await run.signal("approved", [1, 2, 3], actor="ann")
        status = await run.wait(timeout=30)
        assert status.state == "succeeded"
        single = await app.job("rich", key="single").dispatch()
        await single.wait(timeout=20)
        bad = await app.job("broken").dispatch()
        await bad.wait(timeout=20)
        await app.failed.discard(bad.id)
        kept = await app.job("fine", key="kept", delay=600.0).dispatch()
        assert (await stored(connection)).keys() >= set(TABLES) - {"cancels", "gates", "deadlines"}
        await asyncio.wait_for(_closed(connection, run.id), 20)
        # The failed node stands in the dead letter: the flow is kept as long as that.
        await age(connection, 8 * DAY)
        assert await app.prune(name="order") == Pruned(0, 0)
        await age(connection, 31 * DAY)
        assert await app.prune(state="succeeded", type="rich", dry_run=True) == Pruned(1, 0)
        assert await app.prune() == Pruned(2, 1)
        assert not (await app.job("rich", key="single").dispatch()).duplicate
        assert (await app.job("fine", key="kept").dispatch()).id == kept.id
    left = await stored(connection)
    assert left.pop("keys") == left.pop("jobs") == 2
    left.pop("finished", None)
    left.pop("attempts", None)
    left.pop("steps", None)
    left.pop("progress", None)
    assert left == {}


async def _closed(connection: Any, flow: UUID) -> None:
    """Callbacks run after the end."""
    open_jobs = """select count(*) from flowrun.jobs j where not exists (select from flowrun.finished f where f.id = j.id)
        and j.flow_id in (select id from flowrun.flows where root_id = $1)"""
    while await connection.fetchval(open_jobs, flow):
        await asyncio.sleep(0.01)


async def test_nothing_of_an_open_flow_goes(app, kinds, connection) -> None:
    async with app.worker(concurrency=4):
        flow = app.flow("order")
        done = flow.add(app.job("fine"), name="done")
        inner = app.flow("inner")
        inner.add(app.job("broken"), name="broken")
        flow.add(inner, after=done, name="inner")
        waits = app.flow("waits")
        waits.add(app.job("fine"), name="fine")
        waits.wait_for("go")
        failing, waiting = await flow.dispatch(), await waits.dispatch()
        await failing.wait(timeout=20)
        await waiting["fine"].wait(timeout=20)
        before = await stored(connection)
        await age(connection, 99 * DAY)
        await connection.execute(
            "insert into flowrun.audit (id, verb, flow_id) values (gen_random_uuid(), 'add', $1)", waiting.id
        )
        assert await app.prune(name="waits", older_than=0.0) == Pruned(0, 0)
        # One that was closed, and is opened again before its turn comes.
        assert await app.prune(dry_run=True) == Pruned(0, 1)
        await app.queues.pause("billing")
        assert await failing.retry() == 1
        assert await app.prune() == Pruned(0, 0)
        after = await stored(connection)
        assert {table: after[table] for table in ("jobs", "flows", "edges", "attempts")} == {
            table: before[table] for table in ("jobs", "flows", "edges", "attempts")
        }
        await failing.cancel()
        assert (await failing.wait(timeout=20)).state == "cancelled"
        await age(connection, 99 * DAY)
        assert await app.prune() == Pruned(0, 1)
        with pytest.raises(NotFound):
            await failing.status()
        with pytest.raises(NotFound):
            await failing.retry()
        with pytest.raises(NotFound):
            await failing.add(app.job("fine"))
        await waiting.signal("go")
        assert (await waiting.wait(timeout=20)).state == "succeeded"


async def test_a_key_that_is_held_for_a_time_outlives_what_it_was_given_to(app, kinds, connection) -> None:
    async with app.worker(concurrency=2):
        run = await app.job("fine", key="k", key_ttl=600.0).dispatch()
        await run.wait(timeout=20)
        assert await app.prune(older_than=0.0) == Pruned(1, 0)
        again = await app.job("fine", key="k", key_ttl=600.0).dispatch()
        assert (again.duplicate, again.id) == (True, run.id)
        await connection.execute("update flowrun.keys set expires_at = now()")
        assert not (await app.job("fine", key="k", key_ttl=600.0).dispatch()).duplicate


async def test_workers_prune_by_themselves(app, kinds, connection, until, monkeypatch) -> None:
    monkeypatch.setattr(pruner, "FIRST", 0.0)
    monkeypatch.setattr(pruner, "TURN", 0.1)
    async with app.worker(concurrency=2), app.worker(concurrency=2):
        runs = await app.dispatch_many([app.job("fine") for _ in range(30)])
        own = await app.job("fine", retention=0.0).dispatch()
        short = await app.job("fine", key="k", key_ttl=0.001).dispatch()
        for run in (*runs, short):
            await run.wait(timeout=20)

        async def turns(*, gone: UUID) -> bool:
            await connection.execute("update flowrun.pruning set due_at = now() where due_at > now() + interval '5 s'")
            return not await connection.fetchval("select count(*) from flowrun.jobs where id = $1", gone)

        await until(lambda: turns(gone=own.id))
        await age(connection, 8 * DAY)
        # Ids tell when a job was dispatched, and a pass looks only at what is old enough.
        await connection.execute("update flowrun.retention set seconds = 0 where scope = 'all' and outcome = 3")
        await until(lambda: turns(gone=runs[-1].id))
        await until(lambda: turns(gone=short.id))

        async def forgotten() -> bool:
            await turns(gone=own.id)
            return not await stored(connection)

        await until(forgotten)


async def test_what_is_refused(app, kinds) -> None:
    for bad in (-1, "7d", True, {}, {"done": 5}, {"failed": -1.0}, math.nan, None):
        with pytest.raises(ConfigurationError, match="retention must be"):
            app.retention(bad)
    with pytest.raises(ConfigurationError, match="type= and queue= exclude each other"):
        app.retention(5.0, type="a", queue="b")
    with pytest.raises(ConfigurationError, match="queue of retention must be"):
        app.retention(5.0, queue="")
    flow = app.flow("order")
    flow.add(app.job("fine", retention=5.0))
    with pytest.raises(InvalidFlow, match=r"node 'fine' has a retention=; a flow is kept as a whole"):
        await flow.dispatch()
    outer = app.flow("outer")
    inner = app.flow("inner", retention=5.0)
    inner.add(app.job("fine"))
    outer.add(inner)
    with pytest.raises(InvalidFlow, match=r"node 'inner' of flow 'outer' has a retention="):
        await outer.dispatch()
    async with app:
        with pytest.raises(ConfigurationError, match="older_than= must be"):
            await app.prune(older_than=-1)
        with pytest.raises(ConfigurationError, match="state= must be one of cancelled, failed, skipped, succeeded"):
            await app.prune(state="ready")


async def test_nobody_waits_for_ever_for_what_is_gone(app, kinds, connection, monkeypatch) -> None:
    monkeypatch.setattr(wait, "SLOW", 0.05)
    monkeypatch.setattr(wait, "STORED", 0.1)
    async with app.worker(concurrency=2):
        first = await app.job("fine", key="k", delay=600.0).dispatch()
        waiting = asyncio.create_task(first.result(timeout=30))
        while first.id not in app.client.waits._seen:
            await asyncio.sleep(0.01)
        second = await app.job("fine", {"n": 2}, key="k", on_conflict="replace").dispatch()
        with pytest.raises(NotFound, match="is stored any more"):
            await waiting
        assert await second.result(timeout=30) == 2
        assert await app.prune(older_than=0.0) == Pruned(1, 0)
        # Not written yet is not gone.
        transaction = connection.transaction()
        await transaction.start()
        third = await app.job("fine", {"n": 3}).dispatch(tx=connection)
        waiting = asyncio.create_task(third.result(timeout=30))
        while third.id not in app.client.waits._missing:
            await asyncio.sleep(0.01)
        await transaction.commit()
        assert await waiting == 3
        monkeypatch.setattr(wait, "UNSEEN", 0.2)
        with pytest.raises(NotFound, match="is stored any more"):
            await second.result(timeout=30)
        assert not app.client.waits._missing
