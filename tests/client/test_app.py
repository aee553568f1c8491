"""Opening, closing, and where the database is."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from flowrun import ConfigurationError, DatabaseError, DatabaseUnavailable, Flowrun, FlowrunError, JobRun, NotFound


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For an embedded PostgreSQL; as root, the server's own user must be able to get there."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_dir() and folder.owner() == tmp_path.owner() and "pytest" in folder.name:
            folder.chmod(0o755)
    place = tmp_path / "postgres"
    monkeypatch.setenv("FLOWRUN_EMBEDDED_DIR", str(place))
    monkeypatch.delenv("FLOWRUN_DSN", raising=False)
    return place


async def test_without_a_dsn_the_embedded_postgres_is_used_and_said_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flowrun()

    @app.handler
    async def add(a: int, b: int) -> int:
        return a + b

    with caplog.at_level(logging.WARNING, logger="flowrun"):
        async with app.worker(concurrency=2):  # no migrate(): the embedded database is brought up to date by itself
            assert await (await add.dispatch(1, b=2)).result(timeout=20) == 3
        async with app:
            run = await add.dispatch(3, 4)
    assert [str(directory) in record.message for record in caplog.records if "embedded" in record.message] == [True]
    # Another app on the same directory finds the same data.
    async with Flowrun(f"embedded://{directory}") as other:
        assert (await (await other.get_job(run.id)).status()).state == "ready"


async def test_two_projects_share_a_server_and_no_jobs(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("shop", "bank"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
    monkeypatch.delenv("FLOWRUN_EMBEDDED_DATABASE", raising=False)
    monkeypatch.chdir(tmp_path / "shop")
    async with Flowrun() as shop:
        mine = await shop.flow("order", key="42").dispatch()
        monkeypatch.chdir(tmp_path / "bank")
        async with Flowrun() as bank:
            theirs = await bank.flow("order", key="42").dispatch()
            assert not theirs.duplicate
            assert urlsplit(shop.dsn).query == urlsplit(bank.dsn).query  # one server
            assert urlsplit(shop.dsn).path != urlsplit(bank.dsn).path
            with pytest.raises(NotFound):
                await bank.get_flow(mine.id)
            monkeypatch.setenv("FLOWRUN_EMBEDDED_DATABASE", urlsplit(shop.dsn).path.lstrip("/"))
            async with Flowrun() as same:
                assert (await same.get_flow(mine.id)).id == mine.id


async def test_the_address_of_the_embedded_postgres_is_for_an_orm_too(directory: Path) -> None:
    app = Flowrun()
    async with app:
        await app.job("x").dispatch()
        for driver in ("asyncpg", "psycopg"):
            engine = create_async_engine(app.dsn.replace("postgresql://", f"postgresql+{driver}://", 1))
            async with engine.connect() as connection:
                assert (await connection.execute(text("select count(*) from flowrun.jobs"))).scalar() == 1
            await engine.dispose()


async def test_an_embedded_server_that_died_is_started_again_under_the_app(
    directory: Path, caplog: pytest.LogCaptureFixture, until: Callable[..., Awaitable[None]]
) -> None:
    app = Flowrun(lease=2.0, poll=0.5)

    @app.handler
    async def add(a: int) -> int:
        return a + 1

    async def served_by() -> int:
        """The server that a new connection leads to: those that are open may outlive theirs by a moment."""
        try:
            connection = await asyncpg.connect(app.dsn)
            try:
                return int((await connection.fetchval("select pg_read_file('postmaster.pid')")).split()[0])
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return 0

    async def answered() -> bool:
        try:
            return await (await add.dispatch(1)).result(timeout=5) == 2
        except (DatabaseError, TimeoutError):
            return False

    async with app.worker(concurrency=2):
        assert await (await add.dispatch(0)).result(timeout=20) == 1
        for number in (signal.SIGKILL, signal.SIGQUIT):
            died = await served_by()
            assert died > 1
            os.kill(died, number)

            async def another(died: int = died) -> bool:
                return await served_by() not in {0, died}

            await until(another)
            await until(answered)
    assert "has died; starting it again" in caplog.text


async def test_dispatching_before_opening_says_what_to_do(app: Flowrun) -> None:
    with pytest.raises(FlowrunError, match="async with app"):
        await app.job("x").dispatch()


async def test_opening_twice_is_opening_once(app: Flowrun) -> None:
    async with app:
        async with app, app:
            pass
        await app.job("x").dispatch()
    with pytest.raises(FlowrunError, match="async with app"):
        await app.job("x").dispatch()


def test_an_app_can_be_opened_in_one_loop_after_another(app: Flowrun) -> None:
    @app.handler
    async def one() -> int:
        return 1

    async def once() -> int:
        async with app.worker(concurrency=2):
            return await (await one.dispatch()).result(timeout=10)

    assert [asyncio.run(once()) for _ in range(3)] == [1, 1, 1]


async def test_an_app_that_is_open_in_another_loop_says_so(app: Flowrun) -> None:
    @app.handler
    async def one() -> int:
        return 1

    async def open_it() -> None:
        async with app:
            pass

    async def wait_for(run: JobRun[int]) -> int:
        return await run.result(timeout=5)

    async def work() -> None:
        async with app.worker():
            pass

    async with app:
        run = await one.dispatch()
        flow = app.chain(one.job(), one.job())
        for elsewhere in (
            open_it, work, one.dispatch, flow.dispatch, run.status, partial(wait_for, run), app.jobs.list, app.migrate,
            run.cancel, lambda: app.dispatch_many([one.job(), one.job()]),
        ):  # fmt: skip
            with pytest.raises(ConfigurationError, match="open in another event loop"):
                await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await run.status()).state == "ready"
        assert (await one.dispatch()).id
    # It is free again.
    await asyncio.to_thread(asyncio.run, open_it())


def test_an_app_left_open_in_a_loop_that_ended_can_be_opened_again(app: Flowrun) -> None:
    @app.handler
    async def one() -> int:
        return 1

    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.__aenter__())
    loop.run_until_complete(_cancel_all())
    loop.close()

    async def once() -> int:
        async with app.worker(concurrency=1):
            return await (await one.dispatch()).result(timeout=10)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert asyncio.run(once()) == 1
        gc.collect()


async def _cancel_all() -> None:
    """As asyncio.run does at its end."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_opened_and_closed_from_different_tasks(app: Flowrun) -> None:
    """As a test's fixture or a web framework's lifespan does it."""
    manager = app.lifespan(None)
    await asyncio.create_task(manager.__aenter__())

    await app.job("x").dispatch()
    await asyncio.create_task(manager.__aexit__(None, None, None))


async def test_an_unreachable_database_is_named_without_its_password() -> None:
    app = Flowrun("postgresql://ann:secret@127.0.0.1:1/shop")
    with pytest.raises(DatabaseUnavailable) as error:
        async with app:
            pass
    assert "127.0.0.1:1/shop" in str(error.value)
    assert "secret" not in str(error.value)


async def test_unknown_ids_and_malformed_ids(app: Flowrun) -> None:
    async with app:
        for get in (app.get_job, app.get_flow):
            with pytest.raises(NotFound):
                await get("01890000-0000-7000-8000-000000000000")
            with pytest.raises(ConfigurationError, match="UUID"):
                await get("not-an-id")


async def test_a_cancelled_dispatch_leaves_a_usable_pool(dsn: str) -> None:
    """A web request that is cancelled in the middle of a large dispatch: all or nothing, and the pool is clean."""
    app = Flowrun(dsn, pool_size=1)

    @app.handler
    async def one(n: int) -> int:
        return n

    async with app:
        for delay in (0.0, 0.001, 0.005, 0.02, 0.05):
            flow = app.flow("large")
            flow.group([one.job(n) for n in range(2000)])
            task = asyncio.create_task(flow.dispatch())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.dispatch(1)
        async with app.client.database.acquire() as connection:
            counts = await connection.fetch(
                "select count(*) from flowrun.jobs where flow_id is not null group by flow_id"
            )
            assert {row[0] for row in counts} <= {2000}
            assert (
                await connection.fetchval("select count(*) from flowrun.jobs where flow_id is null and kind = 0") == 5
            )


@pytest.mark.parametrize("bad", [{"lease": 0}, {"poll": -1.0}, {"lease": True}, {"pool_size": 0}, {"max_payload": "1"}])
def test_bad_settings_are_refused_by_name(bad: dict) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        Flowrun("postgresql://localhost/x", **bad)


@pytest.mark.parametrize("schema", ["", "pg_x", "x" * 64, "a\x00b"])
def test_bad_schemas_are_refused(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        Flowrun("postgresql://localhost/x", schema=schema)


@pytest.mark.parametrize("schema", ['Shop "1"', "select", "schön.er; drop", "a" * 63])
async def test_odd_schema_names_work_from_end_to_end(dsn: str, schema: str) -> None:
    app = Flowrun(dsn, schema=schema)

    @app.handler(attempts=1)
    async def one(fail: bool) -> int:
        return 1 // (not fail)

    await app.migrate()
    async with app.worker(concurrency=2):
        flow = app.flow("f")
        first = flow.add(one.job(False))
        flow.add(one.job(True), after=first)
        flow.add(one.job(False), after="one-2", name="never")
        status = await (await flow.dispatch()).wait(timeout=10)
        assert {name: job.state for name, job in status.nodes.items()} == {
            "one": "succeeded",
            "one-2": "failed",
            "never": "skipped",
        }
