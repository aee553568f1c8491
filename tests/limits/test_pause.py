"""A pause is exact: once it has returned, no job of the queue begins, on whichever worker."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun
from flowrun.store import claim, insert
from tests.limits.pausing import doze, make_app
from tests.programs import started, working

pytestmark = pytest.mark.timeout(120)
ROUNDS = 20


async def load(app: Flowrun, stop: asyncio.Event) -> None:
    """Work without end, by every way a job comes to a worker."""
    n = 0
    while not stop.is_set():
        n += 1
        specs = [app.job(type) for type in ("quick", "waits", "thread", "other") * 20]
        specs += [app.job("quick", limit=("key", 3)) for _ in range(5)]
        await app.dispatch_many(specs)
        for _ in range(10):
            await app.job("quick").dispatch()
        await app.chain(*(app.job("quick") for _ in range(6))).dispatch()
        await asyncio.sleep(0.01)
        if n % 10 == 0:
            await asyncio.sleep(0.1)


def late(answer: Any) -> Any:
    """A claim whose answer takes its time: the pause overtakes it."""

    async def claimed(*args: Any, **kwargs: Any) -> Any:
        jobs = await answer(*args, **kwargs)
        await asyncio.sleep(0.02)
        return jobs

    return claimed


async def test_after_a_pause_nothing_begins(
    dsn: str, connection: asyncpg.Connection, tmp_path: Path, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "claim", late(claim.claim))
    monkeypatch.setattr(insert, "insert_taken", late(insert.insert_taken))
    journal = tmp_path / "journal"
    app = make_app(dsn, journal)
    paused: list[tuple[int, int]] = []
    stop = asyncio.Event()

    def begun() -> list[tuple[str, int, str]]:
        rows = [line.split() for line in journal.read_text().splitlines()]
        return [(type, int(at), pid) for type, at, pid in rows]

    process = await started("tests.limits.pausing", dsn, str(journal))
    async with working(process), app.worker(concurrency=8, queues=["held", "free"]):
        loading = asyncio.create_task(load(app, stop))
        for number in range(ROUNDS):
            before = len(begun())
            await until(lambda before=before: sum(type != "other" for type, _, _ in begun()[before:]) > 20)
            pause = await app.queues.pause("held")
            since = time.monotonic_ns()
            assert pause
            assert pause.unheard == ()
            more = [await app.job(type, queue="held").dispatch() for type in ("quick", "waits", "thread")]
            if number % 5 == 0:
                await asyncio.sleep(0.2)

            async def nothing_runs() -> bool:
                again = await app.queues.pause("held")
                assert not again
                return again.running == 0

            await until(nothing_runs)
            assert {(await run.status()).state for run in more} == {"ready"}
            paused.append((since, time.monotonic_ns()))
            assert await app.queues.resume("held")
        stop.set()
        await loading
        ready = "select count(*) from flowrun.ready"

        async def done() -> bool:
            return await connection.fetchval(ready) == 0

        await until(done, 60)
    held = [(type, at, pid) for type, at, pid in begun() if type != "other"]
    assert len({pid for _, _, pid in held}) == 2
    assert [one for one in held if any(since < one[1] < end for since, end in paused)] == []
    assert await connection.fetchval("select max(attempt) from flowrun.finished") == 1


WORKER = """
insert into flowrun.workers (id, name, queues, types, concurrency, expires_at, heard)
values ($1, $2, $3, '{}', 1, now() + make_interval(secs => $4), $5)
"""


async def test_who_does_not_answer_is_named_and_waited_for_no_longer_than_it_lives(
    app: Flowrun, connection: asyncpg.Connection
) -> None:
    async with app:
        await connection.execute(WORKER, uuid4(), "old", ["held"], 60.0, None)
        await connection.execute(WORKER, uuid4(), "elsewhere", ["free"], 60.0, -1)
        await connection.execute(WORKER, uuid4(), "gone", ["held"], -1.0, -1)
        pause = await app.queues.pause("held")
        assert (bool(pause), pause.running, pause.unheard) == (True, 0, ("old",))

        await connection.execute(WORKER, uuid4(), "hangs", ["held", "free"], 60.0, -1)
        pause = await app.queues.pause("held", timeout=0.05)
        assert (bool(pause), pause.unheard) == (False, ("hangs", "old"))

        await connection.execute(
            "update flowrun.workers set expires_at = now() + interval '0.3 s' where name = 'hangs'"
        )
        assert (await app.queues.pause("held", timeout=30.0)).unheard == ("old",)
        with pytest.raises(ConfigurationError, match="timeout= must be seconds"):
            await app.queues.pause("held", timeout=-1)


async def test_a_queue_that_is_put_or_declared_paused(app: Flowrun, dsn: str) -> None:
    begun: list[str] = []

    @app.handler
    async def note(what: str) -> None:
        begun.append(what)

    other = Flowrun(dsn)
    other.queue("late", paused=True)
    async with app.worker(queues=["default", "late"]):
        await (await note.dispatch(what="before")).result(timeout=20)
        assert await app.queues.put("default", paused=True)
        held = await note.dispatch(what="held")
        async with other.worker(queues=["late"]):
            declared = await note.job(what="late").options(queue="late").dispatch()
            assert (await app.queues.pause("late")).running == 0
            assert (await held.status()).state == (await declared.status()).state == "ready"
        assert begun == ["before"]
        assert await app.queues.put("default", paused=False)
        assert await app.queues.resume("late")
        await held.result(timeout=20)
        await declared.result(timeout=20)


async def test_a_job_that_waits_for_a_process_does_not_begin_after_the_pause(dsn: str, tmp_path: Path, until) -> None:
    app = Flowrun(dsn, processes=1)
    app.handler("doze", process=True)(doze)
    async with app.worker(concurrency=4):
        first, second = [
            await app.job("doze", {"place": str(tmp_path / name), "seconds": seconds}).dispatch()
            for name, seconds in (("first", 1.0), ("second", 0.0))
        ]

        async def first_alone() -> bool:
            return (tmp_path / "first").exists() and (await second.status()).state == "running"

        await until(first_alone)
        pause = await app.queues.pause("default")
        assert pause.running == 2
        await first.result(timeout=30)

        async def handed_back() -> bool:
            return (await second.status()).state == "ready"

        await until(handed_back)
        assert not (tmp_path / "second").exists()
        await app.queues.resume("default")
        await second.result(timeout=30)
        assert (await second.status()).attempt == 1
