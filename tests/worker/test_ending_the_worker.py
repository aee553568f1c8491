"""Jobs that try to end the worker that runs them: it goes on, or what they did counts as a loss of theirs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from flowrun import Flowrun, JobFailed
from flowrun.worker import stubborn
from tests.cli.conftest import Shell, shell

__all__ = ["shell"]

pytestmark = pytest.mark.timeout(90)

PROGRAM = """
import asyncio, os, signal
from shop import app, note

def sweep():
    for task in asyncio.all_tasks():
        task.cancel()

@app.handler(attempts=1)
async def sweeps():
    sweep()
    await asyncio.sleep(60)

@app.handler(attempts=1)
async def sweeps_others():
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.2)
    return 1

@app.handler(attempts=1)
async def stops():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.2)
    return 1

@app.handler(attempts=1)
async def signals():
    note("signalling")
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)

async def embedded():
    async with app.worker(concurrency=4):
        await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(embedded())
"""


async def test_a_served_worker_outlives_jobs_that_cancel_all_or_stop_the_loop(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "ends.py").write_text(PROGRAM)
    server = await shell.start("serve", "ends:app", "--concurrency", "4")
    async with app:
        bystanders = [await app.job("work", {"seconds": 3.0}, attempts=1).dispatch() for _ in range(2)]
        while len(shell.words("start")) < 2:
            await asyncio.sleep(0.05)
        swept = await app.job("sweeps").dispatch()
        with pytest.raises(JobFailed, match="its own code cancelled the task of the attempt"):
            await swept.result(timeout=40)
        assert await (await app.job("sweeps_others").dispatch()).result(timeout=40) == 1
        assert await (await app.job("stops").dispatch()).result(timeout=40) == 1
        for run in bystanders:
            assert await run.result(timeout=60) == server.process.pid
            assert (await run.status()).attempt == 1
        assert await (await app.job("work").dispatch()).result(timeout=40) == server.process.pid
        await server.says("tried to cancel the worker")
        await server.says("stopped the event loop")
    server.send(signal.SIGTERM)
    assert await server.code() == 0


async def test_a_job_that_signals_its_own_worker_and_waits_on_has_failed(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "ends.py").write_text(PROGRAM)
    server = await shell.start("serve", "ends:app", "--grace", "0.5")
    async with app:
        run = await app.job("signals").dispatch()
        other = await app.job("work", {"seconds": 60.0}, attempts=1).dispatch()
        assert await server.code(40) == 0
        with pytest.raises(JobFailed, match="it asked its own worker to end"):
            await run.result(timeout=20)
        assert (await other.status()).state != "failed"


async def test_a_program_that_a_job_ends_has_lost_what_it_ran(shell: Shell, app: Flowrun, connection: Any) -> None:
    """Embedded, ``loop.stop()`` ends the program in an orderly way: as if it had been asked to, but nobody has."""
    (shell.directory / "ends.py").write_text(PROGRAM)

    async def program() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "ends.py", cwd=shell.directory, env=shell.environment, stderr=asyncio.subprocess.DEVNULL
        )

    async with app:
        run = await app.job("stops", attempts=5).dispatch()
        for _ in range(2):
            process = await program()
            try:
                assert await asyncio.wait_for(process.wait(), 40) == 1
            finally:
                if process.returncode is None:
                    process.kill()
        lost = await connection.fetchval("select options ->> 'lost' from flowrun.jobs where id = $1", run.id)
        waiting = await connection.fetchval("select count(*) from flowrun.leases")
        assert (lost, waiting) == ("1", 1), "the second program took the job from the first, and is gone like it"


async def test_services_are_not_among_the_tasks_of_the_program(app: Flowrun, monkeypatch) -> None:
    """What sees all tasks, and cancels those it does not know, meets none that works for the worker."""
    monkeypatch.setattr(stubborn, "STUBBORN", 1.0)

    @app.handler(attempts=1)
    async def sweeps(of: str) -> None:
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not mine and task.get_name() != of:
                task.cancel()
        await asyncio.sleep(0)

    @app.handler
    async def fine() -> int:
        return 1

    main = asyncio.current_task()
    assert main is not None
    main.set_name("main")
    async with app.worker(concurrency=2):
        for _ in range(3):
            await (await sweeps.dispatch("main")).result(timeout=20)
            runs = await app.dispatch_many([fine.job() for _ in range(10)])
            assert [await run.result(timeout=20) for run in runs] == [1] * 10
        (status,) = await app.workers.list()
        assert status.name.endswith(f":{os.getpid()}")
