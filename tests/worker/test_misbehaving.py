"""Handlers that do not behave: that ignore their cancellation, leave by odd ways, or end what runs them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import anyio.from_thread
import pytest

from flowrun import Flowrun, Job, JobFailed
from flowrun.worker import blocked, consumer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "STUBBORN", 0.2)
    monkeypatch.setattr(consumer, "LOOK", 0.05)


async def test_who_ignores_cancellation_loses_consumer_and_result(
    app: Flowrun, impatient: None, until, caplog: pytest.LogCaptureFixture
) -> None:
    go = asyncio.Event()
    begun: list[str] = []

    async def waits_where_it_should_not() -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    @app.handler(attempts=1, timeout=0.1)
    async def slow() -> str:
        begun.append("slow")
        await waits_where_it_should_not()
        return "too late"

    @app.handler(attempts=3)
    async def endless() -> str:
        begun.append("endless")
        await waits_where_it_should_not()
        return "too late"

    @app.handler
    async def quick() -> int:
        return 7

    async with app.worker(concurrency=2, grace=0.1) as worker:
        late, cancelled = await slow.dispatch(), await endless.dispatch()
        await until(lambda: len(begun) == 2)
        await cancelled.cancel()
        with pytest.raises(JobFailed, match="took longer than 0.1 s, and its handler ignores its cancellation"):
            await late.result(timeout=20)
        assert (await cancelled.wait(timeout=20)).state == "cancelled"
        assert worker.abandoned == 2
        # Their consumers work again: both, and not in a busy loop.
        before = time.process_time()
        assert [await (await quick.dispatch()).result(timeout=20) for _ in range(4)] == [7] * 4
        await asyncio.sleep(0.3)
        assert time.process_time() - before < 0.3 * 0.9
        go.set()
        await until(lambda: worker.abandoned == 0)
        assert await (await quick.dispatch()).result(timeout=20) == 7
        assert (await late.status()).state == "failed"
        assert (await cancelled.status()).state == "cancelled"
    told = [record.getMessage() for record in caplog.records if "ignores its cancellation" in record.getMessage()]
    (about,) = [line for line in told if f"job {late.id} (slow)" in line and "left behind" in line]
    assert "in waits_where_it_should_not" in about
    assert "flowrun/worker" not in about


async def test_threads_that_go_on_take_nobody_s_place(
    app: Flowrun, impatient: None, until, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    @app.handler(attempts=1, timeout=0.1)
    def asleep() -> str:
        go.wait(30)
        return "too late"

    @app.handler
    def quick() -> int:
        return 7

    try:
        async with app.worker(concurrency=1) as worker:
            late = [await asleep.dispatch() for _ in range(3)]
            for run in late:
                with pytest.raises(JobFailed, match="took longer than 0.1 s"):
                    await run.result(timeout=20)
            assert await (await quick.dispatch()).result(timeout=20) == 7
            assert worker.abandoned == 3
            await until(lambda: caplog.text.count("its thread still runs") == 3)
            assert "go.wait(30)" in caplog.text
            go.set()
            await until(lambda: worker.abandoned == 0)
            assert {(await run.status()).state for run in late} == {"failed"}
    finally:
        go.set()


async def test_a_plain_function_can_look_whether_its_attempt_is_over_and_say_how_far_it_is(app: Flowrun, until) -> None:
    over = threading.Event()

    @app.handler(attempts=1, timeout=0.3)
    def looks(job: Job) -> None:
        job.progress(0.25, "a quarter")
        try:
            while not over.wait(0.01):
                anyio.from_thread.check_cancelled()
        except BaseException:
            over.set()
            raise

    try:
        async with app.worker(concurrency=1) as worker:
            run = await looks.dispatch()
            with pytest.raises(JobFailed, match="took longer than 0.3 s"):
                await run.result(timeout=20)
            await until(over.is_set)
            await until(lambda: worker.abandoned == 0)
            status = await run.status()
            assert (status.progress, status.progress_message) == (0.25, "a quarter")
    finally:
        over.set()


async def test_an_exception_that_closes_coroutines_ends_no_consumer(app: Flowrun) -> None:
    """GeneratorExit from a future does not rise through coroutines: it closes them, and comes out at the outermost."""

    @app.handler(attempts=1)
    async def closes(timed: bool = False) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, GeneratorExit("closed"))
        async with asyncio.timeout(5 if timed else None):
            await future

    @app.handler(attempts=2, timeout=10)
    async def raises() -> None:
        raise GeneratorExit("mine")

    @app.handler
    async def fine() -> int:
        return 1

    async with app.worker(concurrency=1):
        for run in (await closes.dispatch(), await closes.job(timed=True).options(timeout=10).dispatch()):
            with pytest.raises(JobFailed, match="closed") as failure:
                await run.result(timeout=20)
            assert failure.value.error_type == "GeneratorExit"
        twice = await raises.job().options(attempts=1).dispatch()
        with pytest.raises(JobFailed, match="mine"):
            await twice.result(timeout=20)
        assert await (await fine.dispatch()).result(timeout=20) == 1


async def test_a_blocked_loop_is_named_while_it_is_and_past_a_limit_its_jobs_go_elsewhere(
    dsn: str, until, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TICK", 0.05)
    monkeypatch.setattr(blocked, "REPORT", 0.3)
    begun, elsewhere = threading.Event(), threading.Event()
    app = Flowrun(dsn, lease=1.0, poll=0.5, block_limit=1.5)
    other = Flowrun(dsn, lease=1.0, poll=0.5)

    @app.handler("block")
    async def block() -> str:
        begun.set()
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and not elsewhere.is_set():
            time.sleep(0.01)  # noqa: ASYNC251 - the point
        return "done"

    @other.handler("block")
    async def unblocked() -> str:
        elsewhere.set()
        return "done elsewhere"

    async def take_it() -> None:
        await asyncio.to_thread(begun.wait, 40)
        async with other.worker(concurrency=1):
            await asyncio.to_thread(elsewhere.wait, 40)

    thread = threading.Thread(target=lambda: asyncio.run(take_it()), daemon=True)
    thread.start()
    async with app:
        async with app.worker(concurrency=2):
            run = await block.dispatch()
            assert await run.result(timeout=40) == "done elsewhere"
        await asyncio.to_thread(thread.join, 40)
    told = [record.getMessage() for record in caplog.records]
    (first, *_) = [line for line in told if "has blocked the event loop for 0." in line]
    assert f"job {run.id} (block)" in first
    assert "time.sleep(0.01)" in first
    assert any("it sends no more heartbeats until it runs" in line for line in told)
    assert any("the event loop runs again" in line for line in told)
