"""What people see of a flow: events as they happen, reasons why a job does not run, open gates."""

from __future__ import annotations

import asyncio
import time

import pytest

from flowrun import Flowrun, Job, JobRun, NotFound, any_of, backoff
from flowrun.store import control
from flowrun.store.bulk import By
from flowrun.store.finish import Settled
from flowrun.store.statement import Statements


async def told(run) -> list[tuple[str, str | None, int | None]]:
    return [(event.kind, event.name, event.attempt) async for event in run.events()]


async def test_everything_that_happens_is_told_once(app, step, until) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(0.01))
    async def flaky(job: Job) -> None:
        await job.progress(0.5, "half")
        if job.attempt == 1:
            raise ValueError("again")

    flow = app.flow("f")
    first = flow.add(flaky.job(), name="flaky")
    gate = flow.wait_for("go", after=first, name="gate")
    flow.add(step("last"), after=gate, name="last")
    flow.add(step("never"), after=gate.failed, name="never")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        live = asyncio.create_task(told(run))
        await run["flaky"].wait(timeout=10)
        await run.signal("go", actor="ann")
        await run.wait(timeout=10)
        events = await asyncio.wait_for(live, 10)
        afterwards = [event async for event in run.events()]
    assert len(set(events)) == len([event for event in events if event[0] != "progress"]) + 1
    expected = [
        ("flow_started", None, None),
        ("job_started", "flaky", 1),
        ("attempt_failed", "flaky", 1),
        ("job_started", "flaky", 2),
        ("job_succeeded", "flaky", 2),
        ("job_succeeded", "gate", 1),
        ("job_started", "last", 1),
        ("job_succeeded", "last", 1),
        ("job_skipped", "never", 0),
        ("signal", None, None),
        ("flow_finished", None, None),
    ]
    assert set(expected) <= set(events)
    assert {(event.kind, event.name, event.attempt) for event in afterwards if event.kind != "progress"} <= set(events)
    assert events[0][0] == "flow_started"
    assert afterwards[-1].kind == "flow_finished"
    assert afterwards[-1].message == "succeeded"
    failed = next(event for event in afterwards if event.kind == "attempt_failed")
    assert (failed.error_type, failed.message, failed.type) == ("ValueError", "again", "flaky")


async def test_nothing_is_lost_between_listing_and_listening(app, dsn) -> None:
    """Watched from another program, while many nodes come and go."""

    @app.handler
    async def quick(job: Job, more: int) -> None:
        for _ in range(more):
            job.spawn(quick.job(0))

    elsewhere = Flowrun(dsn)
    async with app.worker(concurrency=10), elsewhere:
        flow = app.flow("f")
        flow.group(*(quick.job(3) for _ in range(20)))
        run = await flow.dispatch()
        there = await elsewhere.get_flow(run.id)
        events = await asyncio.wait_for(told(there), 20)
        status = await run.status()
    for kind in ("job_started", "job_succeeded"):
        assert sorted(name or "" for one, name, _ in events if one == kind) == sorted(status.nodes)
    assert events.count(("flow_finished", None, None)) == 1


async def test_a_busy_loop_does_not_put_off_the_end(app, step) -> None:
    """How long a look took is the server's time: this loop's own makes no pause longer."""
    flow = app.flow("f")
    flow.wait_for("go", name="gate")
    async with app.worker():
        run = await flow.dispatch()
        watching = asyncio.create_task(told(run))
        await asyncio.sleep(0)  # the first look has begun
        time.sleep(2.0)  # noqa: ASYNC251 - the program does something else, for longer than it should
        await run.signal("go")
        events = await asyncio.wait_for(watching, 10)
    assert events[-1] == ("flow_finished", None, None)


async def test_events_of_no_flow(app) -> None:
    async with app:
        run = await app.chain(app.job("step")).dispatch()
        async with app.client.database.acquire() as connection:
            await connection.execute("delete from flowrun.flows")
        with pytest.raises(NotFound):
            await told(run)


async def test_a_watcher_that_leaves(app, step) -> None:
    async with app:
        run = await app.chain(step("x")).dispatch()
        async for event in run.events():
            assert event.kind == "flow_started"
            break


async def test_why_a_job_does_not_run(app, step, until) -> None:
    begun = asyncio.Event()

    @app.handler
    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    flow = app.flow("order")
    running = flow.add(hang.job(), name="running")
    gate = flow.wait_for("ok?", answers=["yes", "no"], timeout=60.0, name="gate")
    flow.add(step("x"), after=[running, gate.when("yes")], name="both")
    flow.add(step("x"), after=any_of(running.failed, gate), name="any")
    flow.add(step("x", queue="nobody"), name="unserved")
    flow.add(app.job("unknown"), name="unknown")
    flow.add(step("x", delay=60.0), name="later")
    done = flow.add(step("bad", fail=True), name="bad")
    flow.add(step("x"), after=done, name="skipped")
    async with app, app.worker(concurrency=2, queues=["default"]):
        run = await flow.dispatch()
        await begun.wait()
        await run["skipped"].wait(timeout=10)

        async def at_the_gate() -> bool:
            return bool(await app.gates.list())

        await until(at_the_gate)
        said = {name: await run.explain(name) for name in (await run.status()).nodes}
        assert said["running"].state == "running"
        assert "attempt 1 since" in str(said["running"])
        assert "waits for the signal 'ok?'" in str(said["gate"])
        assert "with one of 'yes', 'no'; its time is over at" in str(said["gate"])
        assert said["both"].reasons == (
            "it waits for 'running' to succeed, which runs",
            "it waits for 'gate' to succeed with result == 'yes'",
        )
        assert said["any"].reasons[0] == "it needs 1 of 2 that are open"
        assert said["unserved"].reasons == ("no worker that lives serves the queue 'nobody'",)
        assert said["unknown"].reasons == ("no worker that lives has a handler of type 'unknown'",)
        assert said["later"].state == "scheduled"
        assert said["later"].reasons[0].startswith("it is due at")
        assert (said["bad"].state, said["bad"].reasons) == ("failed", ("ValueError: bad broke",))
        assert said["skipped"].reasons == ("its parent bad failed; it was to succeed",)
        whole = await run.explain()
        assert (whole.name, whole.state) == ("order", "waiting")
        assert "it waits for 'running' to end, which runs" in whole.reasons
        assert str(await run["later"].explain()) == str(said["later"])
        # Asked to stop, and not told yet.
        async with app.client.database.acquire() as connection:
            await control.cancel_job(connection, Statements(), run["running"].id, By(), Settled())
        assert "it was asked to stop" in (await run.explain("running")).reasons
        await run.cancel()
        with pytest.raises(NotFound):
            await run.explain("nobody")


async def test_open_gates(app, step, until) -> None:
    flow = app.flow("order")
    flow.wait_for("ship?", answers=["yes", "no"], default="no", timeout=60.0, name="ask")
    flow.wait_for("paid", name="pay")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()

        async def both() -> bool:
            return len(await app.gates.list()) == 2

        await until(both)
        gates = {gate.node: gate for gate in await app.gates.list()}
        assert (gates["ask"].flow, gates["ask"].flow_id, gates["ask"].signal) == ("order", run.id, "ship?")
        assert (gates["ask"].answers, gates["ask"].default) == (["yes", "no"], "no")
        assert gates["ask"].due_at is not None
        assert (gates["pay"].answers, gates["pay"].default, gates["pay"].due_at) == (None, None, None)
        assert len(await app.gates.list(limit=1)) == 1
        await run.cancel()
        assert await app.gates.list() == []


async def test_what_a_job_was_asked_for_is_seen(app, connection) -> None:
    @app.handler(tags=["mail", "slow"])
    async def send(to: str) -> None: ...

    @app.handler(limit=3)
    async def few() -> None: ...

    @app.cron("0 3 * * *", key="nightly")
    @app.handler
    async def report() -> None: ...

    await app.migrate()
    async with app, app.worker(queues=["elsewhere"]):
        asked = send.job(to="ann").options(key="ann", limit=("tenant: 7", 5), fair_key="tenant 7")
        first, second, third = [
            await spec.dispatch()
            for spec in (asked, few.job(), send.job(to="bob").options(sequence="account 7", tags=["late"]))
        ]
        flow = app.flow("order", key="order-1", tags=["shop"])
        flow.add(send.job(to="cy").options(limit=2), name="mail")
        run = await flow.dispatch()
        tick = await app.schedules.trigger("nightly")

        status = await first.status()
        assert (status.tags, status.key, status.limit, status.limit_key, status.sequence, status.fair_key) == (
            ["mail", "slow"], "ann", 5, "tenant: 7", None, "tenant 7",
        )  # fmt: skip
        status = await second.status()
        assert (status.tags, status.key, status.limit, status.limit_key, status.fair_key) == ([], None, 3, None, None)
        status = await third.status()
        assert (status.tags, status.limit, status.limit_key, status.sequence) == (["late"], None, None, "account 7")
        (status,) = (await run.status()).nodes.values()
        assert (status.queue, status.limit, status.tags) == ("default", 2, ["mail", "slow"])
        assert (await run.status()).tags == ("shop",)
        assert isinstance(tick, JobRun)
        status = await tick.status()
        assert (status.schedule, status.scheduled_for is not None) == ("nightly", True)
        assert [job.id for job in await app.jobs.list(tag="late")] == [third.id]
        (row,) = await connection.fetch("select * from flowrun.job_status where key = 'ann'")
        assert (row["id"], row["tags"], row["limit"], row["fair_key"]) == (first.id, ["mail", "slow"], 5, "tenant 7")
        (row,) = await connection.fetch("select * from flowrun.job_status where schedule = 'nightly'")
        assert row["id"] == tick.id
