"""Unique, throttled and debounced jobs: eight workers in two processes and fifty dispatchers who race, counted by SQL."""

from __future__ import annotations

import pytest

from flowrun import InvalidFlow, NotFound
from tests.client.racing import DISPATCHERS, KEYS, TABLES, TURNS, make_app
from tests.programs import says, started, working


async def test_fifty_dispatchers_race(dsn, connection, until) -> None:
    await connection.execute(TABLES)
    processes = [await started("tests.client.racing", dsn) for _ in range(2)]
    async with working(*processes):
        for process in processes:
            process.stdin.write(b"\n")
        for process in processes:
            await says(process, "dispatched")

        async def waiting() -> int:
            return await connection.fetchval(
                "select count(*) from flowrun.jobs where type <> 'patient' and id not in (select id from flowrun.finished)"
            )

        await until(lambda: _none(waiting), 40)
        assert await connection.fetchval("select count(*) from events") == 2 * DISPATCHERS * TURNS
        # Whatever happened before a dispatch is dealt with by a job that started after it.
        assert await connection.fetchval("select count(*) from events where not seen") == 0
        ran = dict(await connection.fetch("select type, count(*) from ran group by type"))
        assert (ran["unique"], ran["throttled"]) == (KEYS, KEYS)
        assert KEYS <= ran["debounced"] < 2 * DISPATCHERS * TURNS
        stored = dict(await connection.fetch("select type, count(*) from flowrun.jobs group by type"))
        assert stored == {**ran, "patient": KEYS}
        rows = await connection.fetch(
            "select args ->> 'key' as key from flowrun.jobs where type = 'patient' order by 1"
        )
        assert [row["key"] for row in rows] == [f"k{n}" for n in range(KEYS)]
        await connection.execute("update flowrun.scheduled set run_at = now()")
        await until(lambda: connection.fetchval("select count(*) = $1 from ran where type = 'patient'", KEYS), 40)
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def _none(count) -> bool:
    return await count() == 0


async def test_debounce_one_by_one(dsn, connection) -> None:
    app = make_app(dsn)
    async with app:
        runs = [await app.job("patient", {"key": "a", "event": n}, debounce=("a", 60.0)).dispatch() for n in range(3)]
        assert [run.duplicate for run in runs] == [False] * 3
        for gone in runs[:2]:
            with pytest.raises(NotFound):
                await gone.status()
        assert (await runs[2].status()).state == "scheduled"
        # It has started: the next one runs besides.
        await connection.execute("delete from flowrun.scheduled")
        await connection.execute(
            "insert into flowrun.workers (id, name, queues, concurrency, expires_at) "
            "values ($1, 'w', '{}', 1, 'infinity')",
            runs[0].id,
        )
        await connection.execute(
            "insert into flowrun.leases (worker_id, n, jobs, attempts) values ($1, 1, array[$2::uuid], '{1}')",
            runs[0].id,
            runs[2].id,
        )
        fourth = await app.job("patient", {"key": "a", "event": 4}, debounce=("a", 60.0)).dispatch()
        assert not fourth.duplicate
        assert [(await run.status()).state for run in (runs[2], fourth)] == ["running", "scheduled"]
        fifth = await app.job("patient", {"key": "a", "event": 5}, debounce=("a", 60.0)).dispatch()
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 2
        # Of many in one dispatch the last one counts.
        specs = [app.job("patient", {"key": "a", "event": n}, debounce=("a", 60.0)) for n in (6, 7, 8)]
        many = await app.dispatch_many(specs)
        assert [run.duplicate for run in many] == [True, True, False]
        assert {run.id for run in many} == {many[2].id}
        with pytest.raises(NotFound):
            await fifth.status()
        args = await connection.fetchval("select args ->> 'event' from flowrun.jobs where id = $1", many[2].id)
        assert args == "8"


async def test_throttle_one_by_one(dsn, connection) -> None:
    app = make_app(dsn)
    async with app:
        first = await app.job("throttled", {"key": "a"}, throttle=("a", 60.0)).dispatch()
        second = await app.job("throttled", {"key": "b"}, throttle=("a", 60.0)).dispatch()
        other = await app.job("throttled", {"key": "b"}, throttle=("b", 60.0)).dispatch()
        assert (second.duplicate, second.id, other.duplicate) == (True, first.id, False)
        await connection.execute("update flowrun.keys set expires_at = now() where key = 'a'")
        assert not (await app.job("throttled", {"key": "c"}, throttle=("a", 60.0)).dispatch()).duplicate
        flow = app.flow("digest", throttle=("ann", 60.0))
        flow.add(app.job("throttled", {"key": "a"}))
        run = await flow.dispatch()
        assert (await flow.dispatch()).id == run.id
        with pytest.raises(InvalidFlow, match="let a debounced job dispatch the flow"):
            app.flow("digest", debounce=("ann", 60.0))
