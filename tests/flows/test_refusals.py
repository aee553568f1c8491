"""What is said to people who ask for what cannot be: by the type, by a name, by a filter, as an operator."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, InvalidFlow, NotFound

BAD = ["a\x00b", "\ud800", "x" * 100_000]


async def test_a_type_that_looks_mistyped_is_said_once_and_waits(
    app: Flowrun, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 13: another program may have its handler, so it cannot be refused."""

    @app.handler
    async def charge_payment() -> None: ...

    async with app:
        runs = [await app.job("charge_paymnet", {"n": n}).dispatch() for n in range(3)]
        await app.job("report").dispatch()
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert told == [
            "no handler of type 'charge_paymnet' is registered here: the job waits for a worker that has one; "
            "did you mean 'charge_payment'?"
        ]
        async with app.worker():
            await (await charge_payment.dispatch()).result(timeout=20)
            assert (await runs[0].status()).state == "ready"
            assert "no worker that lives has a handler of type 'charge_paymnet'" in str(await runs[0].explain())


async def test_moments_at_the_ends_of_time(app: Flowrun, step) -> None:
    """Row 29."""
    async with app, app.worker(concurrency=2):
        late = await step("late", run_at=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)).dispatch()
        later = await step("later", run_at=datetime.max.replace(tzinfo=UTC), delay=86_400.0 * 365 * 100).dispatch()
        early = await step("early", run_at=datetime(1970, 1, 1, tzinfo=UTC)).dispatch()
        first = await step("first", run_at=datetime.min.replace(tzinfo=UTC)).dispatch()
        assert await early.result(timeout=20) == "early"
        assert await first.result(timeout=20) == "first"
        assert [(await run.status()).state for run in (late, later)] == ["scheduled"] * 2


async def test_a_detail_that_is_too_large_is_left_out(app: Flowrun) -> None:
    class Refused(Exception):
        detail: object

    @app.handler(attempts=1)
    async def bad(size: int) -> None:
        error = Refused("no")
        error.detail = {"text": "x" * size}
        for _ in range(30):
            error.add_note("n" * 30_000)
        raise error

    async with app, app.worker(concurrency=2):
        runs = [await bad.dispatch(size=size) for size in (1_000, 30_000)]
        for run in runs:
            await run.wait(timeout=20)
        small, large = [(await run.attempts())[0].detail for run in runs]
    assert len(small["detail"]["text"]) == 1_000
    assert "detail" not in large
    for detail in (small, large):
        assert len(detail["notes"]) == 20
        assert all("truncated 10000 characters" in note and len(note) < 20_100 for note in detail["notes"])


async def test_a_worker_without_handlers_says_so(app: Flowrun, caplog: pytest.LogCaptureFixture) -> None:
    """Row 38."""
    async with app.worker(queues=["nobody's"]):
        assert "this worker has no handlers: it can run no job" in caplog.text


async def test_a_node_that_is_not_there(app: Flowrun, step) -> None:
    flow = app.flow("f")
    for number in range(3000):
        flow.add(step("x"), name=f"node {number}")
    async with app:
        run = await flow.dispatch()
        for there in (run, await run.status()):
            with pytest.raises(NotFound) as error:
                there["nod 17"]
            assert "did you mean 'node 17' or " in str(error.value)
            assert str(error.value).endswith("node 11 and 2,988 more")
            for name in (*BAD, 5, None):
                with pytest.raises(NotFound) as error:
                    there[name]
                assert len(str(error.value)) < 400


async def test_filters_and_names_of_what_is_stored(app: Flowrun, step, connection) -> None:
    """Refused, or nothing is found: never an error of the driver, nothing is written, and the pool is fine."""
    async with app:
        run = await step("x").dispatch()
        flow = app.flow("f")
        flow.wait_for("go", name="go")
        flow_run = await flow.dispatch()
        for bad in (*BAD, 5):
            asked: list[Any] = [
                app.flows.list(name=bad), app.flows.list(tag=bad), app.jobs.list(type=bad), app.jobs.list(queue=bad),
                app.failed.list(error=bad), app.failed.retry_all(error=bad), app.failed.discard_all(type=bad),
                app.jobs.cancel(type=bad), app.flows.cancel(name=bad), app.prune(older_than=1.0, type=bad),
                app.schedules.exists(bad), app.schedules.remove(bad),
            ]  # fmt: skip
            for question in asked:
                if bad == BAD[2]:
                    assert str(await question) in ("[]", "False", "Pruned(jobs=0, flows=0)")
                else:
                    with pytest.raises(ConfigurationError):
                        await question
            for question in (
                app.schedules.get(bad), app.schedules.pause(bad), app.queues.pause(bad), flow_run.signal(bad, 1),
                flow_run.add(step("x"), name=bad),
            ):  # fmt: skip
                with pytest.raises((ConfigurationError, NotFound)) as error:
                    await question
                assert len(str(error.value)) < 500
            with pytest.raises(ConfigurationError):
                app.retention(5.0, type=bad)
            for who in ({"actor": bad}, {"reason": bad}):
                for verb in (run.cancel, run.retry, run.resolve, run.skip, flow_run.cancel, flow_run.retry):
                    with pytest.raises(ConfigurationError, match=f"{next(iter(who))}= must be a text of at most"):
                        await verb(**who)
        with pytest.raises(InvalidArguments, match="the value of signal 'go' cannot be stored: 1.9 MiB .*1.0 MiB"):
            await flow_run.signal("go", "x" * 2_000_000)
        with pytest.raises(InvalidArguments, match="the result cannot be stored: 1.9 MiB .*1.0 MiB"):
            await run.resolve("x" * 2_000_000)
        assert (await run.status()).state == "ready"
        assert await run.cancel(actor="a" * 200, reason="r" * 2000) == "cancelled"
    assert await connection.fetchval("select count(*) from flowrun.audit") == 1
    assert await connection.fetchval("select count(*) from flowrun.signals") == 0


async def test_flows_that_are_too_large(app: Flowrun, step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 22: the limit itself would take minutes to write."""
    from flowrun import mint

    monkeypatch.setattr(mint, "_ROOM_BITS", mint._SHARD_BITS + 3)
    flow = app.flow("f")
    for _ in range(7):
        flow.add(step("x"))
    async with app:
        with pytest.raises(InvalidFlow, match="a flow of 8 nodes; the most is 7"):  # its end is a job too
            await flow.dispatch()
