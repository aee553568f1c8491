"""Races, cancelling, deadlines, and what undoes a flow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from flowrun import FlowCancelled, Job, JobCancelled, JobFailed, backoff, race


@pytest.fixture
def journal() -> list[str]:
    return []


@pytest.fixture
def hang(app, journal):
    """Runs until it is interrupted."""

    @app.handler(attempts=3)
    async def hang(name: str = "hang", swallow: bool = False) -> str:
        journal.append(f"{name} begins")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            journal.append(f"{name} interrupted")
            if not swallow:
                raise
        return name

    return hang


async def test_cancelling_a_running_job(app, hang, journal, until) -> None:
    async with app, app.worker(concurrency=2):
        run = await hang.dispatch()
        await until(lambda: journal == ["hang begins"])
        assert await run.cancel(actor="ann", reason="ordered twice") == "requested"
        status = await run.wait(timeout=10)
        assert (status.state, status.error, status.attempt) == ("cancelled", "by ann: ordered twice", 1)
        with pytest.raises(JobCancelled, match="ordered twice"):
            await run.result(timeout=5)
        assert await run.cancel() == "too late"
    assert journal == ["hang begins", "hang interrupted"]


@pytest.mark.parametrize("options", [{}, {"timeout": 30.0}])
async def test_a_handler_that_swallows_its_cancellation_is_cancelled(app, hang, journal, until, options) -> None:
    async with app, app.worker(concurrency=2):
        run = await hang.job(swallow=True).options(**options).dispatch()
        await until(lambda: journal == ["hang begins"])
        await run.cancel()
        assert (await run.wait(timeout=10)).state == "cancelled"
        other = await hang.dispatch("next")
        await until(lambda: "next begins" in journal)
        await other.cancel()
        await other.wait(timeout=10)


async def test_cancelling_in_another_process(app, dsn, hang, journal, until) -> None:
    from flowrun import Flowrun

    elsewhere = Flowrun(dsn)
    async with app.worker(concurrency=2), elsewhere:
        run = await elsewhere.job("hang").dispatch()
        await until(lambda: journal == ["hang begins"])
        assert await run.cancel() == "requested"
        assert (await run.wait(timeout=10)).state == "cancelled"


async def test_cancelling_a_thread_leaves_it_behind(app, until) -> None:
    import threading

    begun, go_on = threading.Event(), threading.Event()

    @app.handler
    def work() -> None:
        begun.set()
        go_on.wait(20)

    async with app, app.worker(concurrency=1):
        run = await work.dispatch()
        await until(begun.is_set)
        await run.cancel()
        assert (await run.wait(timeout=10)).state == "cancelled"
        go_on.set()


async def test_cancelling_what_waits(app, step) -> None:
    async with app:
        later = await step("later", delay=60.0).dispatch()
        ready = await step("ready").dispatch()
        assert (await later.cancel(), await ready.cancel()) == ("cancelled", "cancelled")
        assert [(await run.status()).state for run in (later, ready)] == ["cancelled"] * 2


async def test_a_cancelled_job_does_not_come_back(app, until, connection) -> None:
    attempts = []

    @app.handler(attempts=5, backoff=backoff.constant(0.01))
    async def fails() -> None:
        attempts.append(1)
        await asyncio.sleep(0.05)
        raise ValueError("again")

    async with app, app.worker(concurrency=1):
        run = await fails.dispatch()
        await until(lambda: bool(attempts))
        while await run.cancel() == "too late":
            raise AssertionError("five attempts take longer")
        assert (await run.wait(timeout=10)).state == "cancelled"


async def test_cancelling_a_flow(app, step, hang, journal, until, ran, connection) -> None:
    inner = app.flow("inner")
    inner.add(hang.job("inside"), name="inside")
    flow = app.flow("f")
    done = flow.add(step("done"), name="done")
    node = flow.add(inner, after=done)
    flow.add(hang.job("beside"), after=done, name="beside")
    child = flow.add(step("child"), after=node, name="child")
    flow.add(step("clean"), after=child, cleanup=True, name="clean")
    flow.wait_for("never", name="gate")
    flow.sleep(60.0, name="sleep")
    flow.on_finish(step("finish"), name="finish")
    flow.on_success(step("success"), name="success")
    flow.on_failure(step("failure"), name="failure")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: {"inside begins", "beside begins"} <= set(journal))
        assert await run.cancel(reason="enough") == "requested"
        status = await run.wait(timeout=10)
        assert status.state == "cancelled"
        with pytest.raises(FlowCancelled):
            await run.result(timeout=5)
        await run["finish"].wait(timeout=10)
        found = {name: job.state for name, job in (await run.status()).nodes.items()}
        assert found == {
            "done": "succeeded",
            "inner/inside": "cancelled",
            "beside": "cancelled",
            "child": "cancelled",
            "clean": "succeeded",
            "gate": "cancelled",
            "sleep": "cancelled",
            "finish": "succeeded",
            "success": "skipped",
            "failure": "skipped",
        }
        assert await run.cancel() == "too late"
    assert sorted(ran) == ["clean", "done", "finish"]
    for table in ("blocked", "scheduled", "ready", "gates", "cancels"):
        assert await connection.fetchval(f"select count(*) from flowrun.{table}") == 0


async def test_the_end_waits_for_what_still_runs(app, step, hang, journal, until) -> None:
    """What comes after a running job is cancelled at once; the flow is not over before the job is."""
    flow = app.flow("f")
    first = flow.add(hang.job(), name="first")
    flow.add(step("child"), after=first, name="child")
    async with app, app.worker(concurrency=1):
        run = await flow.dispatch()
        await until(lambda: journal == ["hang begins"])
        await run.cancel()
        status = await run.wait(timeout=10)
        assert {name: job.state for name, job in status.nodes.items()} == {"first": "cancelled", "child": "cancelled"}
    assert journal == ["hang begins", "hang interrupted"]


async def test_cancelling_one_node(app, step, hang, journal, until, states) -> None:
    flow = app.flow("f")
    first = flow.add(hang.job(), name="first")
    flow.add(step("child"), after=first, name="child")
    flow.add(step("always"), after=first.finished, name="always")
    async with app, app.worker(concurrency=1):
        run = await flow.dispatch()
        await until(lambda: journal == ["hang begins"])
        assert await run["child"].cancel() == "cancelled"
        assert (await run.status()).state == "running"
        assert await run["first"].cancel() == "requested"
        assert await states(run) == {"first": "cancelled", "child": "cancelled", "always": "succeeded"}
        assert (await run.status()).state == "cancelled"


async def test_what_a_cancelled_flow_spawns_is_cancelled(app, step, ran, until) -> None:
    spawned, go_on = asyncio.Event(), asyncio.Event()

    @app.handler
    async def grow(job: Job) -> None:
        job.spawn(app.job("step", {"name": "late"}), name="late")
        spawned.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            go_on.set()
            raise

    flow = app.flow("f")
    flow.add(grow.job(), name="grow")
    async with app, app.worker(concurrency=1):
        run = await flow.dispatch()
        await spawned.wait()
        await run.cancel()
        status = await run.wait(timeout=10)
    assert status.state == "cancelled"
    assert ran == []


async def test_the_winner_of_a_race(app, step, hang, journal, states) -> None:
    flow = app.flow("f")
    fast = flow.add(step("fast"), name="fast")
    slow = flow.add(hang.job("slow"), name="slow")
    later = flow.add(step("later", delay=60.0), name="later")
    flow.add(step("win"), after=race(fast, slow, later), name="win")
    async with app, app.worker(concurrency=3):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == "win"
        found = await states(run)
        assert found == {"fast": "succeeded", "slow": "cancelled", "later": "cancelled", "win": "succeeded"}
        assert (await run.status()).state == "succeeded"


async def test_a_race_of_flows_and_with_other_conditions(app, step, hang, states) -> None:
    inner = app.flow("inner")
    first = inner.add(hang.job("slow"), name="first")
    inner.add(step("second"), after=first, name="second")
    flow = app.flow("f")
    gate = flow.add(step("gate"), name="gate")
    fast = flow.add(step("fast"), name="fast")
    flow.add(step("win"), after=[gate, race(fast, flow.add(inner))], name="win")
    async with app, app.worker(concurrency=3):
        run = await flow.dispatch()
        found = await states(run)
        assert found == {
            "gate": "succeeded",
            "inner/first": "cancelled",
            "inner/second": "cancelled",
            "fast": "succeeded",
            "win": "succeeded",
        }
        assert (await run.status()).state == "succeeded"


async def test_a_race_nobody_wins(app, step, states) -> None:
    flow = app.flow("f")
    a = flow.add(step("a", fail=True, optional=False), name="a")
    b = flow.add(step("b", fail=True), name="b")
    flow.add(step("win"), after=race(a, b), name="win")
    async with app, app.worker(concurrency=2):
        assert await states(await flow.dispatch()) == {"a": "failed", "b": "failed", "win": "skipped"}


async def test_racers_that_arrive_together(app, step) -> None:
    """One wins, and what comes after runs once, however close it was."""
    wins = []

    @app.handler("quick")
    async def quick() -> None:
        await asyncio.sleep(0.001)

    @app.handler("win")
    async def win(number: int) -> None:
        wins.append(number)

    async def one(number: int) -> str:
        flow = app.flow("f")
        racers = [flow.add(quick.job(), name=f"r{n}") for n in range(4)]
        flow.add(win.job(number), after=race(*racers))
        return (await (await flow.dispatch()).wait(timeout=30)).state

    async with app, app.worker(concurrency=20), app.worker(concurrency=20):
        states = await asyncio.gather(*(one(number) for number in range(25)))
    assert set(states) == {"succeeded"}
    assert sorted(wins) == list(range(25))


async def test_a_deadline(app, hang, journal, step, states) -> None:
    flow = app.flow("f", deadline=0.3)
    first = flow.add(hang.job(), name="first")
    flow.add(step("child"), after=first, name="child")
    quick = app.flow("g", deadline=0.3)
    quick.add(step("quick"))
    async with app, app.worker(concurrency=2):
        assert await (await quick.dispatch()).result(timeout=10) == "quick"
        run = await flow.dispatch()
        assert await states(run) == {"first": "cancelled", "child": "cancelled"}
        status = await run.status()
        assert (status.state, status["child"].error) == ("cancelled", "its deadline is over")


async def test_start_by(app, step, until, connection) -> None:
    async with app, app.worker(concurrency=1):
        run = await app.job("nobody_knows_it").options(start_by=0.2).dispatch()
        with pytest.raises(JobFailed, match="did not begin by start_by") as error:
            await run.result(timeout=10)
        assert error.value.error_type == "flowrun.StartedTooLate"
        past = datetime.now(UTC) - timedelta(seconds=1)
        assert (await (await step("x", start_by=past).dispatch()).wait(timeout=10)).state == "failed"
        future = datetime.now(UTC) + timedelta(seconds=0.2)
        ok = await step("ok", start_by=future).dispatch()
        assert await ok.result(timeout=10) == "ok"
        flow = app.flow("f")
        gate = flow.wait_for("never")
        flow.add(step("late", start_by=0.2), after=gate, name="late")
        flow.add(step("told"), after=flow.nodes[1].failed, name="told")
        flow_run = await flow.dispatch()
        assert (await flow_run["told"].wait(timeout=10)).state == "succeeded"
        await flow_run.cancel()

        async def none_left() -> bool:
            return not await connection.fetchval("select count(*) from flowrun.deadlines where kind < 2")

        await until(none_left)


async def test_compensation_in_reverse_order(app, ran, step, states) -> None:
    flow = app.flow("order")
    pay = flow.add(step("pay"), name="pay", compensate=lambda node: step("undo pay", given=node.result))
    book = flow.add(step("book"), after=pay, name="book")
    book.compensate(step("undo book"))
    ship = flow.add(step("ship"), after=book, name="ship", compensate=step("undo ship"))
    flow.add(step("tell", fail=True), after=ship, name="tell", compensate=step("never"))
    flow.on_failure(step("sorry"), name="sorry")
    async with app, app.worker(concurrency=5):
        run = await flow.dispatch()
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("failed", "compensated")
        await run["sorry"].wait(timeout=10)
    assert ran == ["pay", "book", "ship", "tell", "undo ship", "undo book", "undo pay", "sorry"]


async def test_nothing_is_undone_when_all_went_well(app, ran, step) -> None:
    flow = app.flow("order")
    pay = flow.add(step("pay"), compensate=step("undo pay"))
    flow.add(step("ship"), after=pay, compensate=step("undo ship"))
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == "ship"
        status = await run.status()
        assert (status.state, status.detail) == ("succeeded", None)
    assert ran == ["pay", "ship"]


async def test_compensation_sees_the_results_and_is_retried(app, step) -> None:
    seen = []

    @app.handler
    async def charge() -> dict[str, int]:
        return {"id": 7}

    @app.handler(attempts=3, backoff=backoff.constant(0.01))
    async def refund(job: Job, charge: int) -> None:
        seen.append((charge, job.attempt, job.parents["charge"].result))
        if job.attempt == 1:
            raise ValueError("try again")

    flow = app.flow("f")
    paid = flow.add(charge.job())
    paid.compensate(refund.job(charge=paid.result["id"]))
    flow.add(step("x", fail=True), after=paid)
    async with app, app.worker(concurrency=2):
        assert (await (await flow.dispatch()).wait(timeout=10)).detail == "compensated"
    assert seen == [(7, 1, {"id": 7}), (7, 2, {"id": 7})]


@pytest.mark.parametrize("compensate", [True, False])
async def test_compensation_when_cancelled(app, ran, step, hang, journal, until, compensate) -> None:
    inner = app.flow("inner")
    inner.add(step("pay"), name="pay", compensate=step("undo pay"))
    flow = app.flow("f")
    node = flow.add(inner)
    flow.add(hang.job(), after=node, name="hang", compensate=step("undo hang"))
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await until(lambda: journal == ["hang begins"])
        await run.cancel(compensate=compensate)
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("cancelled", "compensated" if compensate else None)
    assert ran == (["pay", "undo pay"] if compensate else ["pay"])


async def test_compensation_that_fails(app, ran, step) -> None:
    flow = app.flow("f")
    a = flow.add(step("a"), name="a", compensate=step("undo a"))
    b = flow.add(step("b"), after=a, name="b", compensate=step("undo b", fail=True))
    flow.add(step("c", fail=True), after=b)
    async with app, app.worker(concurrency=2):
        status = await (await flow.dispatch()).wait(timeout=10)
    assert (status.state, status.detail) == ("failed", "compensation failed")
    assert ran == ["a", "b", "c", "undo b", "undo a"]
