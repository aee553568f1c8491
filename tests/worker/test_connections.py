"""Connections that die: every kind of them, and the whole server's sessions at once."""

from __future__ import annotations

import asyncio
import threading
import time

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.store import settle, upkeep
from flowrun.worker import blocked, heartbeat

pytestmark = pytest.mark.timeout(60)


async def kill_sessions(connection, pattern: str = "%") -> int:
    rows = await connection.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'flowrun' and query ilike $1",
        pattern,
    )
    return len(rows)


@pytest.mark.parametrize("victim", ["%listen%", "%expires_at%", "%skip locked%", "with held as%", "%pg_notify%", "%"])
async def test_a_worker_survives_the_death_of_its_connections(dsn: str, connection, victim: str) -> None:
    app = Flowrun(dsn, lease=4.0, poll=0.5)
    ran: list[int] = []

    @app.handler(attempts=10)
    async def note(number: int) -> int:
        await asyncio.sleep(0.001)
        ran.append(number)
        return number

    async with app.worker(concurrency=4):
        killed = 0
        runs = []
        for wave in range(5):
            runs += await app.dispatch_many([note.job(number) for number in range(wave * 20, wave * 20 + 20)])
            killed += await kill_sessions(connection, victim)
            assert await runs[-1].result(timeout=20) == wave * 20 + 19
        assert [await run.result(timeout=20) for run in runs] == list(range(100))
    assert killed > 0
    assert set(ran) == set(range(100))
    assert await connection.fetchval("select count(*) from flowrun.finished where outcome = 1") == 100
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_worker_that_cannot_plan_ahead_works_all_the_same(app, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[int] = []

    async def plan(*_: object) -> None:
        refused.append(1)
        raise asyncpg.UndefinedTableError("it is gone for now")

    monkeypatch.setattr(settle, "plan", plan)

    @app.handler
    async def echo(value: int) -> int:
        return value

    async with app.worker():
        assert await (await echo.dispatch(value=3)).result(timeout=20) == 3
    assert refused == [1]


async def listeners(connection) -> set[int]:
    """The sessions that claim listen for what they could claim: known by what they have last asked."""
    rows = await connection.fetch(
        "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and (query like '%select r.ctid%' or query like '%chr(31)%')"
    )
    return {row[0] for row in rows}


async def test_pickup_is_quick_again_after_the_listener_was_killed(dsn: str, connection, until) -> None:
    app = Flowrun(dsn, lease=8.0, poll=30.0)

    @app.handler
    async def nothing() -> None: ...

    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        await (await other.job("nothing").dispatch()).result(timeout=10)
        await until(lambda: listeners(connection))
        (before,) = await listeners(connection)
        await connection.execute("select pg_terminate_backend($1)", before)

        async def listens_again() -> bool:
            return bool(await listeners(connection) - {before})

        await until(listens_again)
        # The poll is 30 s away: only a notification can bring this one in time.
        await (await other.job("nothing").dispatch()).result(timeout=10)


async def test_what_listens_in_a_blocked_loop_is_hung_up_and_listens_again(
    dsn: str, connection, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server process would wait for somebody to read, with its snapshot held."""
    monkeypatch.setattr(blocked, "TICK", 0.05)
    monkeypatch.setattr(heartbeat, "UNREAD", 0.3)
    begun, gone = threading.Event(), threading.Event()
    app = Flowrun(dsn, lease=1.0, poll=30.0, block_limit=60.0)

    @app.handler
    async def block() -> None:
        begun.set()
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and not gone.is_set():
            time.sleep(0.01)  # noqa: ASYNC251 - the point

    @app.handler
    async def nothing() -> None: ...

    async def watch(before: set[int]) -> None:
        observer = await asyncpg.connect(dsn)
        await asyncio.to_thread(begun.wait, 40)
        while before & await listeners(observer):
            await asyncio.sleep(0.01)
        gone.set()
        await observer.close()

    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        await until(lambda: listeners(connection))
        before = await listeners(connection)
        thread = threading.Thread(target=lambda: asyncio.run(watch(before)), daemon=True)
        thread.start()
        await (await block.dispatch()).result(timeout=50)
        assert gone.is_set()
        await until(lambda: listeners(connection))
        await (await other.job("nothing").dispatch()).result(timeout=10)


async def test_a_settle_whose_answer_was_lost_is_not_done_twice(dsn: str, connection) -> None:
    app = Flowrun(dsn, lease=4.0, poll=0.5)

    @app.handler
    async def one(n: int) -> int:
        return n

    async with app.worker(concurrency=8):
        runs = []
        for _ in range(20):
            flow = app.flow("f")
            nodes = flow.group(*[one.job(n) for n in range(5)])
            flow.add(one.job(99), after=nodes, name="join")
            runs.append(await flow.dispatch())
            await kill_sessions(connection, "with held as%")
        for run in runs:
            assert await run.result(timeout=30) == 99
    assert await connection.fetchval("select count(*) from flowrun.finished") == 20 * 7


async def test_a_worker_that_was_given_up_waits_for_the_database_to_begin_again(
    dsn: str, connection, monkeypatch, until
) -> None:
    """It has had one life: what keeps it from the next one passes, as anything else that happens to it does."""
    register, calls = upkeep.register, 0

    async def refused(*args, **given) -> None:
        nonlocal calls
        calls += 1
        if 1 < calls < 9:
            raise asyncpg.exceptions.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction")
        await register(*args, **given)

    monkeypatch.setattr(upkeep, "register", refused)
    app = Flowrun(dsn, lease=1.0, poll=0.5)

    @app.handler
    async def nothing() -> None: ...

    async with app.worker(concurrency=2) as worker:
        await (await nothing.dispatch()).result(timeout=20)
        await connection.execute("delete from flowrun.workers")
        await until(lambda: calls > 8)
        await (await nothing.dispatch()).result(timeout=20)
        worker.stop()


async def test_a_worker_that_cannot_begin_again_can_be_stopped(dsn: str, connection, monkeypatch, until) -> None:
    register, calls = upkeep.register, 0

    async def refused(*args, **given) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise asyncpg.exceptions.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction")
        await register(*args, **given)

    monkeypatch.setattr(upkeep, "register", refused)
    app = Flowrun(dsn, lease=1.0, poll=0.5)

    @app.handler
    async def nothing() -> None: ...

    async with app.worker(concurrency=2) as worker:
        await connection.execute("delete from flowrun.workers")
        await until(lambda: calls > 4)
        worker.stop()
        await asyncio.wait_for(worker.ended(), 20)
