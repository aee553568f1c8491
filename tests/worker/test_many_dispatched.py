"""A handler that dispatches or spawns very many jobs holds up nobody before its attempt is settled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flowrun import Flowrun, Job
from flowrun.client.outbox import AttemptOutbox
from flowrun.worker import run

pytestmark = pytest.mark.timeout(120)


async def test_others_have_their_turn_while_a_handler_dispatches_many(app: Flowrun) -> None:
    dispatching = asyncio.Event()
    over = False
    turns = 0

    @app.handler
    async def leaf(number: int) -> None: ...

    @app.handler(queue="many")
    async def many() -> None:
        nonlocal over
        dispatching.set()
        for number in range(2000):
            await leaf.dispatch(number)
        over = True

    @app.handler(queue="many")
    async def other() -> None:
        nonlocal turns
        await dispatching.wait()
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async with app.worker(concurrency=2, queues=["many"]):
        runs = [await other.dispatch(), await many.dispatch()]
        for one in runs:
            await one.result(timeout=100)
    assert turns >= 10


async def test_what_is_spawned_in_masses_is_laid_out_off_the_loop(app: Flowrun, monkeypatch) -> None:
    monkeypatch.setattr(run, "LARGE", 10)
    threads: list[int] = []
    sealed = AttemptOutbox.sealed

    def noted(self: AttemptOutbox):
        threads.append(threading.get_ident())
        return sealed(self)

    monkeypatch.setattr(AttemptOutbox, "sealed", noted)

    @app.handler
    async def leaf(number: int) -> int:
        return number

    @app.handler
    async def spawns(job: Job, count: int) -> None:
        for number in range(count):
            job.spawn(leaf.job(number))

    async with app.worker(concurrency=4):
        for count in (3, 30):
            flow = app.flow(f"of {count}")
            flow.add(spawns.job(count=count))
            status = await (await flow.dispatch()).wait(timeout=60)
            assert status.state == "succeeded"
            assert len(status.nodes) == count + 1
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False]
