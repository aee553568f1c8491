"""A type of jobs is paused: once that has returned, no job of it begins, on whichever worker, in whatever queue."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun, Job
from flowrun.store import claim, insert
from tests.limits.pausing import make_app
from tests.limits.test_pause import late, load

pytestmark = pytest.mark.timeout(120)


async def test_after_a_pause_of_a_type_none_of_it_begins(
    dsn: str, connection: asyncpg.Connection, tmp_path, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "claim", late(claim.claim))
    monkeypatch.setattr(insert, "insert_taken", late(insert.insert_taken))
    journal = tmp_path / "journal"
    journal.touch()
    app = make_app(dsn, journal)
    paused: list[tuple[int, int]] = []
    stop = asyncio.Event()
    async with app.worker(concurrency=8), app.worker(concurrency=8):
        loading = asyncio.create_task(load(app, stop))
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert (await app.types.pause("quick")).unheard == ()
            began = time.monotonic_ns()
            await asyncio.sleep(0.1)
            paused.append((began, time.monotonic_ns()))
            assert await app.types.resume("quick")
        stop.set()
        await loading
    lines = [line.split() for line in journal.read_text().splitlines()]
    moments = [int(word) for words in lines if "quick" in words for word in words if word.isdecimal() and len(word) > 8]
    assert moments
    assert [one for one in moments for began, ended in paused if began < one < ended] == []


async def test_jobs_that_dispatch_themselves_for_ever_are_stopped(app: Flowrun, connection, until) -> None:
    runs = 0

    @app.handler
    async def again(job: Job) -> None:
        nonlocal runs
        runs += 1
        await again.dispatch()

    @app.handler
    async def other() -> None: ...

    await app.migrate()
    async with app.worker(concurrency=4):
        for _ in range(4):
            await again.dispatch()
        await until(lambda: runs > 20)
        pause = await app.types.pause("again")
        assert pause
        assert pause.unheard == ()
        await until(lambda: _running(connection, 0))
        seen = runs
        await (await other.dispatch()).result(timeout=10)
        assert len(await app.jobs.cancel(type="again")) == 4
        assert not await app.types.pause("again"), "it was paused already"
        assert await app.types.resume("again")
        assert not await app.types.resume("again")
        await (await other.dispatch()).result(timeout=10)
        assert runs == seen
        assert await connection.fetchval("select count(*) from flowrun.ready") == 0


async def _running(connection: asyncpg.Connection, jobs: int) -> bool:
    found = await connection.fetchval(
        "select count(*) from flowrun.leases, unnest(jobs) as u (id) where not exists (select from flowrun.finished f where f.id = u.id)"
    )
    return bool(found == jobs)


async def test_a_paused_type_is_seen_and_explained(app: Flowrun) -> None:
    @app.handler
    async def held() -> None: ...

    await app.migrate()
    async with app.worker():
        await app.types.pause("held")
        run = await held.dispatch()
        other = await app.job("held").options(queue="default", limit=("key", 1)).dispatch()
        assert "its type 'held' is paused" in str(await run.explain())
        [status] = [one for one in await app.types.list() if one.name == "held"]
        assert (status.paused, status.ready, status.workers) == (True, 2, 1)
        await app.types.resume("held")
        await run.result(timeout=10)
        await other.result(timeout=10)


def test_types_on_the_command_line(app: Flowrun, dsn: str, capsys) -> None:
    from flowrun.cli.entry import main

    asyncio.run(app.migrate())
    assert main(["types", "pause", "x", "--dsn", dsn]) == 0
    assert main(["types", "pause", "x", "--dsn", dsn]) == 0
    assert "type 'x' was paused already" in capsys.readouterr().err
    assert main(["types", "--json", "--dsn", dsn]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "x", "paused": True, "ready": 0, "workers": 0}
    main(["doctor", "--dsn", dsn])
    assert "type 'x' is paused, with 0 job(s) ready" in capsys.readouterr().out
    assert main(["types", "resume", "x", "--dsn", dsn]) == 0
    assert main(["types", "resume", "x", "--dsn", dsn]) == 0
    assert "type 'x' was not paused" in capsys.readouterr().err
    assert main(["types", "pause", "--dsn", dsn]) == 2


@pytest.mark.parametrize("wrong", ["", "a\n", 5, None])
async def test_names_that_are_none(app: Flowrun, wrong) -> None:
    async with app:
        with pytest.raises(ConfigurationError, match="type must be a text"):
            await app.types.pause(wrong)
        with pytest.raises(ConfigurationError, match="timeout= must be seconds"):
            await app.types.pause("x", timeout=-1)
