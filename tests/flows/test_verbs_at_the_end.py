"""What operators do between the last node's end and the flow's, while a flow is undone, and right after a cancel."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import InvalidFlow, Job, NotPossible, race


@pytest.fixture
def stubborn(app):
    """A handler that takes its time to stop: it goes on hearing of it until it may leave."""
    begun, leave = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    @app.handler("stubborn", attempts=3)
    async def handler(job: Job, spawn: bool = False) -> str:
        runs.append(job.attempt)
        begun.set()
        if len(runs) > 1:
            if spawn:
                job.spawn(app.job("step", {"name": "spawned"}), name="spawned")
            return "at last"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            while not leave.is_set():
                try:
                    await leave.wait()
                except asyncio.CancelledError:
                    continue
            raise
        return "never"

    handler.begun, handler.leave, handler.runs = begun, leave, runs
    return handler


async def test_when_all_nodes_have_ended_a_cancel_is_too_late(app, step, ran, connection) -> None:
    flow = app.flow("order")
    flow.add(step("pay"), name="pay")
    async with app:
        run = await flow.dispatch()
        await run.resolve("pay", "by hand")  # no worker runs, so the flow's end waits to be run
        assert await run.cancel() == "too late"
        async with app.worker():
            assert await run.result(timeout=10) == "by hand"
    assert await connection.fetchval("select count(*) from flowrun.cancels") == 0


async def test_a_late_cancel_leaves_nothing_charged_that_is_not_refunded(app, step, ran) -> None:
    """Whether the flow is undone is decided before its end: a cancel between the two would cancel and not undo."""
    flow = app.flow("order")
    flow.add(step("pay"), name="pay", compensate=step("refund"))
    async with app:
        run = await flow.dispatch()
        await run.resolve("pay", "by hand")
        assert await run.cancel() == "too late"
        async with app.worker():
            assert (await run.wait(timeout=10)).state == "succeeded"
    assert ran == []


async def test_when_all_nodes_have_ended_nothing_can_be_added(app, step, ran) -> None:
    flow = app.flow("order")
    flow.add(step("pay"), name="pay")
    async with app:
        run = await flow.dispatch()
        await run.resolve("pay")
        with pytest.raises(InvalidFlow, match="all nodes .* have ended"):
            await run.add(step("gift"), name="gift")
        async with app.worker():
            status = await run.wait(timeout=10)
    assert (status.state, list(status.nodes)) == ("succeeded", ["pay"])


async def test_what_was_added_in_time_is_waited_for(app, step, ran, states) -> None:
    flow = app.flow("order")
    flow.add(step("pay"), name="pay")
    flow.wait_for("go")
    async with app:
        run = await flow.dispatch()
        await run.resolve("pay")
        await run.add(step("gift", fail=True), name="gift")
        await run.resolve("go")
        async with app.worker():
            assert (await run.wait(timeout=10)).state == "failed"
    assert ran == ["gift"]


@pytest.mark.parametrize("compensate", [True, False])
async def test_a_flow_is_what_its_jobs_are_also_when_it_was_cancelled(app, ran, step, connection, compensate) -> None:
    """The last handler cancels its own flow and returns before it hears of it: everything has succeeded."""

    @app.handler
    async def last(job: Job) -> str:
        run = await app.get_flow(job.flow_id)
        assert await run.cancel(compensate=compensate) == "requested"
        return "done"

    flow = app.flow("order")
    flow.add(last.job(), compensate=step("undo"))
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == "done"
        status = await run.status()
        assert (status.state, status["last"].state) == ("succeeded", "succeeded")
        assert await run.retry() == 0
    assert ran == []
    assert await connection.fetchval("select count(*) from flowrun.cancels") == 0


async def test_what_was_asked_to_stop_and_fails_is_cancelled(app, connection) -> None:
    @app.handler(attempts=1)
    async def last(job: Job) -> str:
        await (await app.get_flow(job.flow_id)).cancel(reason="enough")
        raise ValueError("just now")

    flow = app.flow("order")
    flow.add(last.job())
    async with app.worker(concurrency=2):
        status = await (await flow.dispatch()).wait(timeout=10)
    assert (status.state, status["last"].state, status["last"].error) == ("cancelled", "cancelled", "enough")


# -- while it is being undone --------------------------------------------------------------------------------------------


@pytest.fixture
def undoing(app, step):
    """A flow that is being undone for as long as its compensation has to."""
    begun, leave = asyncio.Event(), asyncio.Event()

    @app.handler("refund", attempts=1)
    async def refund(job: Job, fail: bool = False) -> None:
        begun.set()
        await leave.wait()
        if fail and job.attempt == 1:
            raise ValueError("the bank is closed")

    def make(*, fail: bool = False):
        flow = app.flow("order")
        pay = flow.add(step("pay"), name="pay", compensate=refund.job(fail=fail))
        flow.add(step("ship", fail=True), after=pay, name="ship")
        flow.on_failure(step("sorry"), name="sorry")
        return flow

    make.begun, make.leave = begun, leave
    return make


async def test_what_is_being_undone_is_not_taken_up_again(app, undoing, ran) -> None:
    async with app.worker(concurrency=3):
        run = await undoing().dispatch()
        await undoing.begun.wait()
        for verb in (
            run.retry,
            run["ship"].retry,
            lambda: run.resolve("ship"),
            lambda: run.skip("ship"),
        ):
            with pytest.raises(NotPossible, match="is being undone"):
                await verb()
        assert await app.jobs.retry(state="failed", flow=run.id) == []
        assert await run.cancel() == "too late"
        undoing.leave.set()
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("failed", "compensated")
        with pytest.raises(NotPossible, match="dispatch it again"):
            await run.retry()
    assert ran.count("ship") == 1


async def test_undoing_can_be_called_off(app, undoing) -> None:
    async with app.worker(concurrency=3):
        run = await undoing().dispatch()
        await undoing.begun.wait()
        assert await run.cancel(compensate=False) == "requested"
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("failed", "compensation cancelled")
        with pytest.raises(NotPossible, match="undone"):
            await run.retry()


async def test_a_compensation_that_failed_is_retried_by_itself(app, undoing, ran, until) -> None:
    undoing.leave.set()
    async with app.worker(concurrency=3):
        run = await undoing(fail=True).dispatch()
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("failed", "compensation failed")
        await run["sorry"].wait(timeout=10)
        [dead] = [one for one in await app.failed.list() if one.type == "refund"]
        await app.failed.retry(dead.id)

        async def undone() -> bool:
            return (await run.status()).detail == "compensated"

        await until(undone)
        assert (await run.status()).state == "failed"
    assert ran == ["pay", "ship", "sorry"]


async def test_a_compensation_that_failed_is_resolved_by_hand(app, undoing, until) -> None:
    undoing.leave.set()
    async with app.worker(concurrency=3):
        run = await undoing(fail=True).dispatch()
        await run.wait(timeout=10)
        await run.resolve("undo pay" if "undo pay" in (await run.status()).nodes else "refund", "paid in cash")

        async def undone() -> bool:
            return (await run.status()).detail == "compensated"

        await until(undone)


async def test_a_failed_compensation_makes_a_cancelled_flow_failed(app, step, until, stubborn) -> None:
    inner = app.flow("inner")
    inner.add(step("pay"), name="pay", compensate=step("refund", fail=True))
    flow = app.flow("order")
    flow.add(stubborn.job(), after=flow.add(inner))
    stubborn.leave.set()
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        await run.cancel()
        status = await run.wait(timeout=10)
    assert (status.state, status.detail) == ("failed", "compensation failed")


async def test_what_a_cancel_left_out_is_undone_when_a_retry_fails(app, step, ran, stubborn) -> None:
    flow = app.flow("order")
    pay = flow.add(step("pay"), name="pay", compensate=step("refund"))
    hang = flow.add(stubborn.job(), after=pay, name="hang")
    flow.add(step("ship", fail=True), after=hang, name="ship")
    stubborn.leave.set()
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        await run.cancel(compensate=False)
        assert (await run.wait(timeout=10)).state == "cancelled"
        assert await run.retry() == 2
        await run["ship"].wait(timeout=10)
        status = await run.wait(timeout=10)
        assert (status.state, status.detail) == ("failed", "compensated")
    assert ran == ["pay", "ship", "refund"]


# -- cancelled, then retried ---------------------------------------------------------------------------------------------


async def test_a_retry_ends_the_cancellation_of_what_still_runs(app, step, ran, stubborn, connection, until) -> None:
    """The handler that is being interrupted runs again, and what it spawns then is part of the flow."""
    flow = app.flow("order")
    hang = flow.add(stubborn.job(spawn=True), name="hang")
    flow.add(step("ship"), after=hang, name="ship")
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        assert await run.cancel() == "requested"
        assert await run.retry() == 2
        assert not (await run.status())["hang"].cancel_requested
        stubborn.leave.set()
        status = await run.wait(timeout=20)
    assert {name: job.state for name, job in status.nodes.items()} == dict.fromkeys(
        ["hang", "spawned", "ship"], "succeeded"
    )
    assert (status.state, ran, stubborn.runs) == ("succeeded", ["spawned", "ship"], [1, 1])
    assert await connection.fetchval("select count(*) from flowrun.cancels") == 0


async def test_a_retry_of_what_only_runs_still_says_how_many(app, stubborn) -> None:
    flow = app.flow("order")
    flow.add(stubborn.job(), name="hang")
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        await run.cancel()
        assert await run.retry() == 1
        stubborn.leave.set()
        assert await run.result(timeout=20) == "at last"


async def test_cancelled_retried_and_cancelled_again(app, stubborn) -> None:
    flow = app.flow("order")
    flow.add(stubborn.job(), name="hang")
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        await run.cancel()
        await run.retry()
        assert await run.cancel(reason="after all") == "requested"
        stubborn.leave.set()
        status = await run.wait(timeout=20)
    assert (status.state, status["hang"].error, stubborn.runs) == ("cancelled", "after all", [1])


# -- what a retry runs again ---------------------------------------------------------------------------------------------


async def test_a_retry_leaves_alone_what_does_not_count(app, step, ran) -> None:
    """Optional failures and losers of races keep what became of them, inside optional flows and losing ones too."""
    loser = app.flow("loser")
    loser.sleep(60.0, name="sleep")
    optional = app.flow("optional")
    optional.add(step("inside", fail=True), name="inside")
    flow = app.flow("order")
    flow.add(step("may fail", fail=True, optional=True), name="may fail")
    flow.add(optional, optional=True)
    flow.add(step("won"), after=race(flow.add(step("quick"), name="quick"), flow.add(loser)), name="won")
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        status = await run.wait(timeout=10)
        assert status.state == "succeeded"
        assert await run.retry() == 0
        assert (await run.status()).nodes == status.nodes
        await run["may fail"].retry()  # by its name it runs again
        await run.wait(timeout=10)
    assert sorted(ran) == ["inside", "may fail", "may fail", "quick", "won"]


async def test_a_flow_that_lost_a_race_is_cancelled_by_what_is_in_it(app, step, connection) -> None:
    loser = app.flow("loser")
    loser.sleep(60.0, name="sleep")
    flow = app.flow("order")
    node = flow.add(loser)
    flow.add(step("won"), after=race(flow.add(step("quick")), node), name="won")
    flow.add(step("after"), after=node.finished)
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        assert (await run.wait(timeout=10)).state == "succeeded"
        assert (await run["loser"].explain()).state == "cancelled"
    assert await connection.fetchval("select count(*) from flowrun.cancels") == 0


async def test_the_end_waits_for_all_when_an_inner_flow_that_is_about_to_end_is_decided_again(app, step, until) -> None:
    inner = app.flow("inner")
    inner.add(step("x"), name="x")
    flow = app.flow("order")
    flow.wait_for("go", after=flow.add(inner))
    async with app:
        run = await flow.dispatch()
        await run.skip("inner/x")  # no worker runs, so the inner flow's end waits to be run
        await run.resolve("inner/x")
        async with app.worker():
            await until(app.gates.list)
            assert (await run.status()).state == "running"
            await run.signal("go", "yes")
            assert await run.result(timeout=10) == "yes"


# -- what the documents say ----------------------------------------------------------------------------------------------


async def test_what_has_succeeded_is_not_skipped_nor_resolved(app, step) -> None:
    flow = app.flow("order")
    flow.add(step("pay"), name="pay")
    flow.wait_for("go")
    async with app.worker():
        run = await flow.dispatch()
        await run["pay"].result(timeout=10)
        for verb in (run.skip, run.resolve):
            with pytest.raises(NotPossible, match="has succeeded already"):
                await verb("pay")


async def test_an_optional_job_that_was_cancelled_makes_the_flow_cancelled(app, step, states) -> None:
    flow = app.flow("order")
    flow.wait_for("go", name="may").optional = True
    flow.add(step("pay"), name="pay")
    async with app.worker():
        run = await flow.dispatch()
        await run["may"].cancel()
        assert (await run.wait(timeout=10)).state == "cancelled"


async def test_where_cleanup_nodes_run(app, step, states, ran, stubborn) -> None:
    stubborn.leave.set()
    inner = app.flow("inner")
    first = inner.add(step("first"), name="first")
    inner.add(step("begins"), cleanup=True, name="begins")
    inner.add(step("behind"), after=first, cleanup=True, name="behind")
    flow = app.flow("order")
    bad = flow.add(step("bad", fail=True), name="bad")
    flow.add(step("skipped"), after=bad, cleanup=True, name="skipped")
    flow.add(step("any case"), after=bad.finished, cleanup=True, name="any case")
    flow.add(inner, after=flow.add(stubborn.job(), name="hang"))
    async with app.worker(concurrency=3):
        run = await flow.dispatch()
        await stubborn.begun.wait()
        await run["any case"].wait(timeout=10)
        await run.cancel()
        found = await states(run)
    assert found == {
        "bad": "failed",
        "skipped": "skipped",
        "any case": "succeeded",
        "hang": "cancelled",
        "inner/first": "cancelled",
        "inner/begins": "succeeded",
        "inner/behind": "succeeded",
    }
