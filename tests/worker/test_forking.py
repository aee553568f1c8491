"""Handlers that fork: the copy of the worker ends before it touches anything, other children are left alone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun import Flowrun, Job

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX"),
]


async def status_of(pid: int) -> int:
    """How a child ended. One that has not is killed: it would be a copy of this test."""

    def wait() -> int:
        for _ in range(1000):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise AssertionError("the child lives on")

    return await asyncio.to_thread(wait)


async def test_a_child_that_comes_back_from_the_handler_ends(app: Flowrun, tmp_path: Path, capfd) -> None:
    marks = tmp_path / "marks"

    def mark(word: str) -> None:
        with marks.open("a") as file:
            file.write(f"{word}\n")

    @app.handler
    async def returns() -> int:
        return os.fork()

    @app.handler(timeout=30.0)
    async def waits() -> int:
        pid = os.fork()
        await asyncio.sleep(0.01)
        if not pid:
            mark("waits went on")
        return pid

    @app.handler(attempts=1)
    async def raises() -> int:
        pid = os.fork()
        if not pid:
            raise ValueError("in the child")
        return pid

    @app.handler
    async def dispatches() -> int:
        pid = os.fork()
        if not pid:
            await returns.job().dispatch(now=True)
            mark("dispatched")
        return pid

    @app.handler
    async def exits() -> int:
        pid = os.fork()
        if not pid:
            sys.exit(7)
        return pid

    @app.handler
    def in_thread() -> int:
        return os.fork()

    @app.handler
    async def in_step(job: Job) -> int:
        async def forks() -> int:
            return os.fork()

        pid = await job.step("fork", forks)
        if not pid:
            mark("step went on")
        return pid

    @app.handler
    async def fine() -> int:
        return 1

    @app.middleware
    async def around(job: Job, call_next: Callable[..., Any]) -> Any:
        value = await call_next(job)
        if value == 0:
            mark("middleware went on")
        return value

    here = os.getpid()
    async with app.worker(concurrency=2):
        for handler in (returns, waits, raises, dispatches, in_thread, in_step):
            run = await handler.dispatch()
            pid = await run.result(timeout=20)
            assert await status_of(pid) == 1, handler
            assert (await run.status()).attempt == 1
        assert await status_of(await (await exits.dispatch()).result(timeout=20)) == 7
        for _ in range(5):
            assert await (await fine.dispatch()).result(timeout=20) == 1
        assert os.getpid() == here
        assert len(await app.jobs.list(type="returns")) == 1
    assert not marks.exists(), marks.read_text()
    assert capfd.readouterr().err.count("came back from the handler") == 6


def square(number: int) -> int:
    return number * number


def in_a_loop_of_its_own(results: Any, dsn: str) -> None:
    async def ask() -> int:
        async with Flowrun(dsn) as app:
            return len(await app.jobs.list())

    results.put(asyncio.run(ask()))


async def test_children_that_end_by_themselves_are_left_alone(app: Flowrun, dsn: str) -> None:
    fork = multiprocessing.get_context("fork")

    @app.handler
    def pool() -> list[int]:
        with fork.Pool(2) as workers:
            return workers.map(square, [1, 2, 3])

    @app.handler
    async def process() -> int:
        results = fork.Queue()
        child = fork.Process(target=in_a_loop_of_its_own, args=(results, dsn))
        child.start()
        count = await asyncio.to_thread(results.get, True, 30)
        await asyncio.to_thread(child.join, 30)
        assert child.exitcode == 0
        return count

    @app.handler
    async def plain() -> int:
        pid = os.fork()
        if not pid:
            total = sum(range(300))
            os._exit(total % 7 + 10)
        return pid

    @app.handler
    async def command() -> str:
        found = subprocess.run(
            [sys.executable, "-c", "print('child')"], capture_output=True, text=True, check=True, preexec_fn=os.getpid
        )
        return found.stdout.strip()

    async with app.worker(concurrency=2):
        assert await (await pool.dispatch()).result(timeout=40) == [1, 4, 9]
        assert await (await process.dispatch()).result(timeout=40) >= 1
        assert await status_of(await (await plain.dispatch()).result(timeout=20)) == sum(range(300)) % 7 + 10
        assert await (await command.dispatch()).result(timeout=40) == "child"
        assert await (await pool.dispatch()).result(timeout=40) == [1, 4, 9]
