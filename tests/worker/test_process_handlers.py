"""``@app.handler(process=True)``: CPU-bound work in a process of its own, which can be killed, and can die."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun import ConfigurationError, Flowrun, Job, JobError, JobFailed
from flowrun.worker import leftovers, processes
from tests.worker import heavy

pytestmark = pytest.mark.timeout(120)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def process(app: Flowrun, function: Callable[..., Any], **options: Any) -> Any:
    return app.handler(process=True, **options)(function)


async def pids_in(file: Path, lines: int, until: Any) -> list[int]:
    await until(lambda: file.exists() and file.read_text().count("\n") >= lines, 60)
    return [int(word) for word in file.read_text().split()]


async def test_it_runs_elsewhere_with_everything_a_plain_function_has(
    app: Flowrun, caplog: pytest.LogCaptureFixture
) -> None:
    train = process(app, heavy.train)

    @app.handler
    async def first() -> int:
        return 20

    caplog.set_level(logging.INFO)
    async with app.worker(concurrency=4):
        flow = app.flow("training")
        before = flow.add(first.job())
        after = flow.add(train.job(heavy.Model(21, Path("/x")), scale=before.result).options(tags=["cpu"]))
        run = await flow.dispatch()
        told = await run.result(timeout=60)
        status = await run["train"].status()
        again = await train.dispatch(heavy.Model(1, Path("/x")))
        assert (await again.result(timeout=60))["pid"] == told["pid"], "the process is kept for the next"
    assert after is not None
    assert told.pop("pid") != os.getpid()
    assert told == {
        "rows": 420.0, "id": str(run["train"].id), "attempt": 1, "tags": ["cpu"], "parents": {"first": ["succeeded", 20]},
    }  # fmt: skip
    assert (status.progress, status.progress_message) == (0.5, "half")
    training = next(record for record in caplog.records if record.getMessage() == "training 21")
    assert (training.name, training.levelname, training.rows) == ("heavy", "WARNING", 21)  # type: ignore[attr-defined]
    assert training.process != os.getpid()
    assert next(record for record in caplog.records if record.getMessage() == "attempt 1").job_type == "train"  # type: ignore[attr-defined]


async def test_the_process_is_no_task_that_its_first_job_left_behind(app: Flowrun) -> None:
    """Such are cancelled; with this one the worker's processes would end, and all further jobs for them fail."""
    pid = process(app, heavy.pid)
    async with app.worker(concurrency=4):
        await (await pid.dispatch()).result(timeout=60)
        watches = [task for task in gc.get_objects() if issubclass(type(task), asyncio.Task) and not task.done()]
        (watch,) = [task for task in watches if "Processes._watch" in task.get_name()]
        assert watch not in asyncio.all_tasks(), "what sees all tasks does not see it"
        context = leftovers._context_of(watch)
        assert context is not None
        assert context.get(app.client.attempt) is None


async def test_how_it_ends_is_told(app: Flowrun, dsn: str) -> None:
    leave = process(app, heavy.leave, attempts=2, retry_on=ArithmeticError)
    asks = process(app, heavy.asks, attempts=1)

    async def failed(run: Any) -> JobFailed:
        with pytest.raises(JobFailed) as failure:
            await run.result(timeout=60)
        return failure.value

    async with app.worker(concurrency=2):
        first = await leave.job("raise").options(attempts=1).dispatch()
        error = await failed(first)
        assert (error.error_type, error.message) == ("tests.worker.heavy.Diverged", "lost in raise")
        assert 'raise Diverged(f"lost in {how}")' in (error.traceback or "")
        assert "/flowrun/worker/" not in (error.traceback or "")  # only the handler's own lines
        error = await failed(await leave.job("raise").options(give_up_on=heavy.Diverged, attempts=9).dispatch())
        assert error.attempts == 1
        error = await failed(await leave.dispatch("discard"))
        assert (error.error_type, error.message, error.attempts) == ("flowrun.errors.Discard", "no use", 1)
        assert (await failed(await leave.dispatch("retry"))).attempts == 2
        error = await failed(await leave.dispatch("exit"))
        assert (error.error_type, error.message) == ("SystemExit", "3")
        error = await failed(await leave.dispatch("hard exit"))
        assert error.error_type == "flowrun.errors.ProcessDied"
        assert "ended with exit code 7" in error.message
        assert "was killed by SIGSEGV" in (await failed(await leave.dispatch("segfault"))).message
        error = await failed(await leave.dispatch("no json"))
        assert error.error_type == "flowrun.ResultNotStorable"
        assert "object" in error.message
        async with Flowrun(dsn) as other:
            error = await failed(await other.job("leave", {"how": 7}).dispatch())
        assert (error.error_type, error.attempts) == ("flowrun.errors.InvalidArguments", 1)
        for what in ("step", "transaction"):
            error = await failed(await asks.dispatch(what))
            assert f"job.{what}() is not there in a handler with process=True" in error.message
        snoozing = await leave.dispatch("snooze")
        await snoozing.cancel()
        assert (await snoozing.wait(timeout=60)).state == "cancelled"


async def test_it_is_killed_by_timeout_cancel_and_leaving_with_all_it_started(
    app: Flowrun, tmp_path: Path, until: Any
) -> None:
    spin = process(app, heavy.spin, attempts=1)
    file = tmp_path / "pids"
    async with app:
        async with app.worker(concurrency=4, grace=0.1) as worker:
            timed = await spin.job(str(file), child=True).options(timeout=0.5).dispatch()
            with pytest.raises(JobFailed, match=r"took longer than 0.5 s"):
                await timed.result(timeout=60)
            cancelled = await spin.dispatch(str(file))
            await pids_in(file, 2, until)
            await cancelled.cancel()
            assert (await cancelled.wait(timeout=60)).state == "cancelled"
            given_back = await spin.dispatch(str(file))
            pids = await pids_in(file, 3, until)
            assert worker.abandoned == 0
        assert len(set(pids)) == 4
        await until(lambda: not any(alive(pid) for pid in pids))
        status = await given_back.status()
        assert (status.state, status.attempt) == ("ready", 0)


async def test_waiting_for_a_process_is_not_the_attempt_s_time_and_idle_ones_end(
    dsn: str, until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Flowrun(dsn, processes=1)
    monkeypatch.setattr(processes, "IDLE", 0.4)

    one = process(app, heavy.pid, timeout=5.0, attempts=1)
    spin = process(app, heavy.spin)
    file = tmp_path / "pids"
    async with app.worker(concurrency=3):
        working = await spin.dispatch(str(file))
        (busy,) = await pids_in(file, 1, until)
        impatient = await one.job().options(timeout=1.5).dispatch()
        waiting = await one.dispatch()
        await asyncio.sleep(1.7)
        await waiting.cancel()
        assert (await waiting.wait(timeout=60)).state == "cancelled"
        await working.cancel()
        assert await impatient.result(timeout=60) != busy
        runs = await app.dispatch_many([one.job() for _ in range(6)])
        pids = {await run.result(timeout=60) for run in runs}
        assert len(pids) == 1
        await until(lambda: not any(alive(pid) for pid in pids))
        assert await (await one.dispatch()).result(timeout=60) not in pids


async def test_a_death_is_noticed_though_its_own_child_lives_which_then_ends_too(
    app: Flowrun, tmp_path: Path, until: Any
) -> None:
    orphaned = process(app, heavy.orphaned, attempts=1)
    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="ended with exit code 9"):
            await (await orphaned.dispatch(str(tmp_path / "pid"))).result(timeout=60)
        (child,) = await pids_in(tmp_path / "pid", 1, until)
        await until(lambda: not alive(child))


def test_what_cannot_run_in_a_process_is_refused_when_it_is_registered(app: Flowrun) -> None:
    def inside() -> None: ...

    async def on_the_loop() -> None: ...

    def told(error: JobError) -> None: ...

    for function, reason in (
        (inside, "top level of a module"),
        (lambda: None, "top level of a module"),
        (on_the_loop, "plain def"),
        (told, "no JobError"),
        (heavy.Model, "must be a function"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            process(app, function)
    assert heavy.train(Job(id=os.urandom(1), type="x"), heavy.Model(1, Path("/")))["rows"] == 1.0  # type: ignore[arg-type]
    assert not asyncio.iscoroutinefunction(process(app, heavy.train))
