"""Jobs dispatched one by one: written together where many come at once, taken by a worker of the same process."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.client import singles
from flowrun.errors import DatabaseUnavailable
from flowrun.store import insert, upkeep
from tests.store.stage import job_row

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def echo(app: Flowrun):
    @app.handler
    async def echo(value: str) -> str:
        return value

    return echo


@pytest.fixture
async def held(dsn: str):
    """``jobs`` cannot be written to until its block ends."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("lock table flowrun.jobs in exclusive mode")
    yield transaction.rollback
    await connection.close()


async def test_many_at_once_share_commits(app: Flowrun, echo, connection) -> None:
    async with app:
        runs = await asyncio.gather(*(echo.dispatch(value=str(number)) for number in range(100)))
        commits = await connection.fetchval("select count(distinct xmin::text) from flowrun.jobs")
        assert commits <= 10
        assert await connection.fetchval("select count(*) from flowrun.ready") == 100
        stored = dict(await connection.fetch("select id, args ->> 'value' from flowrun.jobs"))
        assert stored == {run.id: str(number) for number, run in enumerate(runs)}
        # But not beyond measure: what is heavy goes by itself.
        heavy = "x" * (singles.HEAVIEST // 2)
        await asyncio.gather(*(echo.dispatch(value=heavy) for _ in range(5)))
        assert await connection.fetchval("select count(distinct xmin::text) from flowrun.jobs") >= commits + 5


async def test_each_caller_gets_its_own_error(app: Flowrun, connection) -> None:
    rows = [job_row(priority=99 if number == 3 else 5) for number in range(10)]
    async with app:
        answers = await asyncio.gather(*(app.client.singles.write([row]) for row in rows), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [asyncpg.CheckViolationError] + [type(None)] * 6
    stored = {row[0] for row in await connection.fetch("select id from flowrun.jobs")}
    assert stored == {row.id for row in rows} - {rows[3].id}


async def test_who_is_cancelled_while_others_are_written_stores_nothing(
    app: Flowrun, echo, connection, held, until
) -> None:
    async with app:
        under_way = []
        for _ in range(singles.WRITERS):
            under_way.append(asyncio.create_task(echo.dispatch(value="under way")))
            await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(echo.dispatch(value=value)) for value in ("left", "stays")]
        await until(lambda: len(app.client.singles._waiting) == 2)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        await held()
        await asyncio.gather(*under_way, waiting[1])
        stored = [row[0] for row in await connection.fetch("select args ->> 'value' from flowrun.jobs order by id")]
        assert stored == ["under way"] * singles.WRITERS + ["stays"]


async def test_a_worker_of_the_same_process_has_it_in_the_commit_that_stores_it(app: Flowrun, connection) -> None:
    seen = []

    @app.handler
    async def look() -> None:
        seen.append(
            await connection.fetchrow(
                "select j.xmin = l.xmin as at_once, l.attempts from flowrun.jobs j"
                " join flowrun.leases l on j.id = any(l.jobs)"
            )
        )

    async with app.worker(concurrency=2):
        await (await look.dispatch()).result(timeout=20)
    assert [tuple(row) for row in seen] == [(True, [1])]
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_busy_worker_takes_nothing_and_nobody_what_is_for_later(app: Flowrun, connection, until) -> None:
    go = asyncio.Event()

    @app.handler
    async def wait() -> None:
        await go.wait()

    async with app.worker(concurrency=2):
        runs = [await wait.dispatch() for _ in range(3)]
        delayed = await wait.job().options(delay=3600.0).dispatch()

        async def has_two() -> bool:
            # While its claimer asks for what there is room for, it takes nothing either: that one brings it then.
            return await connection.fetchval("select sum(cardinality(jobs)) from flowrun.leases") == 2

        await until(has_two)
        assert await connection.fetchval("select id from flowrun.ready") == runs[2].id
        assert await connection.fetchval("select id from flowrun.scheduled") == delayed.id
        go.set()
        for run in runs:
            await run.result(timeout=20)


@pytest.mark.parametrize("done", [True, False])
async def test_a_job_whose_insert_was_never_answered_runs_once(
    app: Flowrun, connection, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    ran = []

    @app.handler
    async def note(number: int) -> None:
        ran.append(number)

    real = insert.insert_taken

    async def lost(*args, **kwargs):
        if done:
            await real(*args, **kwargs)
        raise ConnectionResetError

    monkeypatch.setattr(insert, "insert_taken", lost)
    async with app.worker(concurrency=2):
        run = await note.dispatch(number=1)
        await run.result(timeout=20)
    assert ran == [1]
    assert await connection.fetchval("select attempt from flowrun.finished") == 1
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 1


async def test_a_lease_in_doubt_is_given_back_although_nobody_dispatches_again(
    app: Flowrun, connection, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    ran = []

    @app.handler
    async def note() -> None:
        ran.append(1)

    real, real_back, refused = insert.insert_taken, upkeep.hand_back, []

    async def lost(*args, **kwargs):
        await real(*args, **kwargs)
        raise ConnectionResetError

    async def hand_back(*args, **kwargs):
        if len(refused) < 2:
            refused.append(1)
            raise ConnectionResetError
        return await real_back(*args, **kwargs)

    monkeypatch.setattr(insert, "insert_taken", lost)
    monkeypatch.setattr(upkeep, "hand_back", hand_back)
    async with app.worker(concurrency=2):
        with pytest.raises(DatabaseUnavailable):
            await note.dispatch()
        await until(lambda: ran == [1])
