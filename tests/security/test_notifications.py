"""Anybody who may log in can notify: what they say makes flowrun look, and does nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest

from flowrun import Flowrun, JobCancelled, mint
from flowrun.store import listen
from flowrun.store.listen import Channels
from flowrun.worker.heard import Heard
from flowrun.worker.session import MOST_AWAITED, Session

CHANNELS = Channels("flowrun")
BAD = [
    "", " ", ",", "await", "await ", "await x", "await ,", "cancel", "cancel ", "cancel x", "cancel x,y", "cancel " + "f" * 7900, "limit",
    "limit ", "limit x", "slots", "slots x", "hello", "hello x", "timer x", "queues x", "schedules x", "x" * 7990, "lane", "\x1f", "'; --",
    "await " + ",".join(["x"] * 3900), "{}", "null", "📮" * 1900, "00000000-0000-0000-0000-00000000000g",
]  # fmt: skip


@pytest.fixture
async def stranger(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """One who may log in, and nothing else."""
    name = f"stranger_{uuid4().hex[:8]}"
    await connection.execute(f"create role {name} login")
    theirs = await asyncpg.connect(dsn.replace("//flowrun@", f"//{name}@"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await theirs.execute("select from flowrun.jobs")
    yield theirs
    await theirs.close()
    await connection.execute(f"drop role {name}")


def shop(dsn: str, **settings: Any) -> Flowrun:
    app = Flowrun(dsn, **settings)
    app.begun = asyncio.Event()  # type: ignore[attr-defined]

    @app.handler
    async def sleeper(seconds: float = 0.5) -> str:
        cast(Any, app).begun.set()
        await asyncio.sleep(seconds)
        return "done"

    @app.handler
    async def quick(n: int) -> int:
        return n

    return app


async def say(stranger: asyncpg.Connection, channel: str, *payloads: str) -> None:
    await stranger.execute("select pg_notify($1, p) from unnest($2::text[]) as u (p)", channel, payloads)


async def test_whoever_is_told_to_stop_looks_whether_it_is_so(dsn: str, stranger: asyncpg.Connection) -> None:
    app = shop(dsn)
    async with app.worker(concurrency=2):
        runs = [await app.job("sleeper").dispatch() for _ in range(2)]
        await cast(Any, app).begun.wait()
        for _ in range(20):
            await say(
                stranger,
                CHANNELS.control,
                *(f"cancel {run.id}" for run in runs),
                "cancel " + ",".join(str(run.id) for run in runs),
            )
            await asyncio.sleep(0)
        assert [await run.result(timeout=20) for run in runs] == ["done", "done"]
        assert {(await run.status()).attempt for run in runs} == {1}


async def test_whoever_is_asked_to_stop_is_told_at_once(dsn: str) -> None:
    """Not with the next heartbeat, which is two minutes away; and by a program that runs no worker."""
    app, other = shop(dsn, lease=360.0), shop(dsn)
    async with app.worker(), other:
        run = await app.job("sleeper", {"seconds": 60.0}).dispatch()
        await cast(Any, app).begun.wait()
        await asyncio.sleep(0.2)
        assert await (await other.get_job(run.id)).cancel() == "requested"
        with pytest.raises(JobCancelled):
            await run.result(timeout=15)


@pytest.mark.parametrize("channel", ["control", "done", "queue", "lane"])
async def test_what_flowrun_did_not_send_is_dropped_in_silence(
    dsn: str, stranger: asyncpg.Connection, caplog: pytest.LogCaptureFixture, channel: str
) -> None:
    app = shop(dsn)
    called: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: called.append(context))
    named = {
        "control": CHANNELS.control,
        "done": CHANNELS.done,
        "queue": CHANNELS.queue("default"),
        "lane": CHANNELS.queue("flowrun"),
    }
    caplog.set_level(logging.WARNING)
    async with app.worker():
        run = await app.job("sleeper").dispatch()
        waiting = asyncio.create_task(run.result(timeout=20))
        await cast(Any, app).begun.wait()
        for _ in range(5):
            await say(stranger, named[channel], *BAD)
        assert await waiting == "done"
        assert await (await app.job("quick", {"n": 1}).dispatch()).result(timeout=20) == 1
    assert called == []
    assert [record.getMessage() for record in caplog.records] == []


async def test_what_is_said_to_be_done_is_looked_at(dsn: str, stranger: asyncpg.Connection) -> None:
    app, other = shop(dsn), shop(dsn)
    async with app.worker(), other:
        run = await other.job("sleeper", {"seconds": 1.0}).dispatch()
        waiting = asyncio.create_task(run.result(timeout=20))
        for _ in range(50):
            await say(stranger, CHANNELS.done, str(run.id), f"{run.id},{mint.job_id()}")
            await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await waiting == "done"


async def test_in_a_flood_of_what_flowrun_might_send_work_goes_on(dsn: str, stranger: asyncpg.Connection) -> None:
    """Every kind, as fast as one connection can, with ids of jobs, of workers, and of nobody."""
    app = shop(dsn)
    flood = True
    said = 0
    worker_ids = [str(uuid4()) for _ in range(3)]

    async def pour() -> None:
        nonlocal said
        while flood:
            ids = [mint.job_id() for _ in range(2000)]
            many = [f"await {','.join(map(str, ids[at : at + 100]))}" for at in range(0, 2000, 100)]
            many += (
                [f"cancel {id}" for id in ids[:100]]
                + [f"limit {id}" for id in worker_ids]
                + [f"slots {id}" for id in worker_ids]
            )
            await say(stranger, CHANNELS.control, *many, "timer", "queues", "schedules", f"hello {worker_ids[0]}")
            await say(stranger, CHANNELS.done, *(",".join(map(str, ids[at : at + 100])) for at in range(0, 2000, 100)))
            await say(stranger, CHANNELS.queue("default"), "", "lane", *map(str, range(100)))
            said += 1

    async with app.worker(concurrency=5):
        pouring = asyncio.create_task(pour())
        jobs = [app.job("quick", {"n": n}).options(limit=("t", 2) if n % 2 else None) for n in range(200)]
        runs = await app.dispatch_many(jobs)
        assert [await run.result(timeout=60) for run in runs] == list(range(200))
        assert {(await run.status()).attempt for run in runs} == {1}
        while said < 5:
            await asyncio.sleep(0.05)
        flood = False
        await pouring


async def test_what_others_wait_for_is_remembered_within_bounds() -> None:
    session = Session(cast(Any, _client()), ["default"], [], 1)
    heard = Heard(session, asyncio.get_running_loop())
    for at in range(3):
        for _ in range(MOST_AWAITED // 100):
            heard.awaited(mint.job_id() for _ in range(100))
        if at == 1:
            await asyncio.sleep(0)  # the loop gets its turn
        assert len(heard._awaited) <= MOST_AWAITED
    await asyncio.sleep(0)
    assert len(session.awaited) == MOST_AWAITED


async def test_what_is_heard_while_the_loop_is_busy_is_kept_once_for_each_kind() -> None:
    called: list[Any] = []
    heard = Heard(cast(Any, SimpleNamespace()), asyncio.get_running_loop())
    for number in range(100_000):
        heard.tell("timer", called.append, number)
        heard.tell(f"queue {number % 3}", called.append, "ring")
    assert len(heard._calls) == 4
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert called == [99_999, "ring", "ring", "ring"]


@pytest.mark.parametrize("bad", BAD)
def test_ids_are_ids_or_none(bad: str) -> None:
    assert listen.ids(bad) == []


def test_ids_are_read() -> None:
    ids = [mint.job_id() for _ in range(100)]
    assert listen.ids(",".join(map(str, ids))) == ids


def _client() -> Any:
    return Flowrun("postgresql://nowhere").client
