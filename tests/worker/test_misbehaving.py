"""Handlers that do not behave: that ignore their cancellation, leave by odd ways, or end what runs them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from datetime import UTC, datetime
from typing import Any

import anyio.from_thread
import pytest

from flowrun import Flowrun, Job, JobFailed
from flowrun.client.doctor import examine
from flowrun.client.findings import Finding
from flowrun.worker import blocked, consumer, leftovers, stubborn
from flowrun.worker.leftovers import Leftovers

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stubborn, "STUBBORN", 0.2)
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


async def test_tasks_that_a_handler_leaves_behind_are_named_and_cancelled(
    app: Flowrun, impatient: None, until, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    told: list[str] = []

    async def endless(what: str) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append(what)

    def start(what: str, **options: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(endless(what), name=what, **options)

    kept = []
    looked = asyncio.Event()

    @app.handler
    async def leaves() -> str:
        start("left by a success")
        kept.append(start("kept", context=contextvars.Context()))
        return "done"

    @app.handler(attempts=1, timeout=10.0)
    async def fails(job: Job) -> None:
        start("left by a failure")
        raise ValueError("no")

    @app.handler
    def in_thread() -> None:
        anyio.from_thread.run_sync(start, "left by a thread")

    @app.handler
    async def long() -> int:
        task = start("its own")
        await looked.wait()
        task.cancel()
        return len(ended)

    @app.on("job_succeeded")
    async def slow_hook(job: Job) -> None:
        await asyncio.sleep(0.5)
        told.append(job.type)

    outside = start("the program's own")
    async with app.worker(concurrency=4):
        runs = [await leaves.dispatch(), await fails.dispatch(), await in_thread.dispatch()]
        running = await long.dispatch()
        assert await runs[0].result(timeout=20) == "done"
        await until(lambda: len(ended) >= 3)
        assert sorted(ended[:3]) == ["left by a failure", "left by a success", "left by a thread"]
        looked.set()
        await running.result(timeout=20)
        assert ended[3:] == ["its own"]
        await until(lambda: len(told) == 3)
        assert not outside.done()
        assert not kept[0].done()
        said = [record.getMessage() for record in caplog.records if "left the task" in record.getMessage()]
        assert len(said) == 3
        (line,) = [line for line in said if "'left by a success'" in line]
        assert f"job {runs[0].id} (leaves)" in line
        assert "in endless" in line

        await leaves.dispatch()  # and nothing is left when the worker has gone
        await until(lambda: len(kept) == 2)
    assert ended.count("left by a success") == 2
    for task in (outside, *kept):
        task.cancel()


async def test_workers_of_one_process_leave_each_others_consumers_alone(
    app: Flowrun, impatient: None, until, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each consumer's context names the last job it ran, which is over: as that of a task that a handler left."""
    monkeypatch.setattr(leftovers, "SHARE", 0)
    looks: list[Leftovers] = []
    look = Leftovers.look

    def counted(self: Leftovers, *, at_once: bool = False) -> None:
        looks.append(self)
        look(self, at_once=at_once)

    monkeypatch.setattr(Leftovers, "look", counted)

    @app.handler
    async def quick() -> None:
        await asyncio.sleep(0.01)

    async with app.worker(concurrency=4), app.worker(concurrency=4):
        for _ in range(2):
            for run in await app.dispatch_many([quick.job() for _ in range(40)]):
                await run.result(timeout=40)
            looks.clear()
            await until(lambda: all(looks.count(one) >= 3 for one in set(looks)) and len(set(looks)) == 2)
    assert "left the task" not in caplog.text


async def test_others_see_what_troubles_a_worker(
    dsn: str, impatient: None, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TICK", 0.02)
    monkeypatch.setattr(blocked, "REPORT", 0.1)
    app = Flowrun(dsn, lease=1.0)
    go, begun = asyncio.Event(), threading.Event()
    free = threading.Event()

    @app.handler(attempts=1, timeout=0.1)
    async def deaf() -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    @app.handler(attempts=1, timeout=0.1)
    def asleep() -> None:
        free.wait(60)

    @app.handler
    async def careless() -> None:
        for _ in range(2):
            asyncio.get_running_loop().create_task(asyncio.sleep(600))  # noqa: RUF006 - that is the point

    @app.handler
    async def blocks() -> None:
        begun.set()
        free.wait(60)

    def seen() -> list[tuple[str, str | None, int]]:
        async def ask() -> list[tuple[str, str | None, int]]:
            async with Flowrun(dsn) as asking:
                (worker,) = await asking.workers.list()
                for one in worker.trouble:
                    assert abs((datetime.now(UTC) - one.since).total_seconds()) < 60
                    assert str(one).startswith(f"{one.type} ")
                return sorted((one.kind, one.type, one.count) for one in worker.trouble)

        return asyncio.run(ask())

    expected = [("handler", "deaf", 1), ("task", "careless", 2), ("thread", "asleep", 1)]

    def watch() -> list[str]:
        """From another thread: the loop is blocked until it has been seen to be."""
        assert begun.wait(30)
        deadline = time.monotonic() + 30
        while ("loop", "blocks", 1) not in seen() and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            return [one.found for one in asyncio.run(diagnosis())]
        finally:
            free.set()

    async def diagnosis() -> list[Finding]:
        return [one for one in await examine(dsn, app.settings) if one.check == "trouble"]

    try:
        async with app.worker(concurrency=4):
            for run in [await deaf.dispatch(), await asleep.dispatch(), await careless.dispatch()]:
                await run.wait(timeout=20)

            async def all_seen() -> bool:
                return await asyncio.to_thread(seen) == expected

            await until(all_seen)
            watching = asyncio.get_running_loop().run_in_executor(None, watch)
            await (await blocks.dispatch()).result(timeout=60)
            found = "\n".join(await watching)
            for words in ("deaf ignores", "asleep goes on", "blocks blocks the event loop", "careless left 2 tasks"):
                assert words in found
            go.set()

            async def only_tasks() -> bool:
                return await asyncio.to_thread(seen) == [("task", "careless", 2)]

            await until(only_tasks)
    finally:
        free.set()
        go.set()
