"""Dispatching inside the caller's own transaction, through each library that has one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine

from flowrun import ConfigurationError, DatabaseError, DuplicateKey, Flowrun, MigrationNeeded, any_of
from flowrun.store import insert

PROMPT = 20.0
"""Seconds, of a machine that may be busy; the worker polls and looks for what is due after minutes only."""


@asynccontextmanager
async def over_asyncpg(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    yield connection, connection.execute, transaction.commit, transaction.rollback
    await connection.close()


@asynccontextmanager
async def over_an_asyncpg_pool(dsn: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield connection, connection.execute, transaction.commit, transaction.rollback


@asynccontextmanager
async def over_asyncpg_begun_by_hand(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    await connection.execute("begin")

    async def end(how: str) -> None:
        await connection.execute(how)

    yield connection, connection.execute, lambda: end("commit"), lambda: end("rollback")
    await connection.close()


@asynccontextmanager
async def over_asyncpg_with_codecs(dsn: str) -> AsyncIterator[Any]:
    """As an application may have it: ids as texts, JSON as values."""
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str)
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=repr, decoder=repr)
    transaction = connection.transaction()
    await transaction.start()
    yield connection, connection.execute, transaction.commit, transaction.rollback
    await connection.close()


def over_a_session(driver: str, kind: str = "session") -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Any]:
        engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
        make: Any = async_sessionmaker(engine)
        if kind == "scoped":
            make = async_scoped_session(make, scopefunc=lambda: None)
        session: AsyncSession = make()

        async def execute(sql: str) -> None:
            await session.execute(text(sql))

        passed = make if kind == "scoped" else session
        yield passed, execute, session.commit, session.rollback
        await session.close()
        await engine.dispose()

    return opened


def over_an_sqlalchemy_connection(driver: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Any]:
        engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
        async with engine.connect() as connection:

            async def execute(sql: str) -> None:
                await connection.execute(text(sql))

            yield connection, execute, connection.commit, connection.rollback
        await engine.dispose()

    return opened


@asynccontextmanager
async def over_psycopg(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection, connection.execute, connection.commit, connection.rollback


@asynccontextmanager
async def over_psycopg_with_its_own_cursors(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(
        dsn, cursor_factory=psycopg.AsyncRawCursor, row_factory=psycopg.rows.dict_row
    ) as connection:
        yield connection, connection.execute, connection.commit, connection.rollback


@asynccontextmanager
async def over_autocommit_psycopg_in_a_block(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("begin")

        async def end(how: str) -> None:
            await connection.execute(how)

        yield connection, connection.execute, lambda: end("commit"), lambda: end("rollback")


WAYS: dict[str, Callable[[str], Any]] = {
    "asyncpg": over_asyncpg,
    "asyncpg-pool": over_an_asyncpg_pool,
    "asyncpg-by-hand": over_asyncpg_begun_by_hand,
    "asyncpg-codecs": over_asyncpg_with_codecs,
    "session-asyncpg": over_a_session("asyncpg"),
    "session-psycopg": over_a_session("psycopg"),
    "scoped-session": over_a_session("asyncpg", "scoped"),
    "sqlalchemy-asyncpg": over_an_sqlalchemy_connection("asyncpg"),
    "sqlalchemy-psycopg": over_an_sqlalchemy_connection("psycopg"),
    "psycopg": over_psycopg,
    "psycopg-raw": over_psycopg_with_its_own_cursors,
    "psycopg-autocommit-block": over_autocommit_psycopg_in_a_block,
}
TABLES = ("jobs", "flows", "edges", "blocked", "ready", "scheduled", "keys")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, dsn: str) -> Callable[[], Any]:
    return lambda: WAYS[request.param](dsn)


@pytest.fixture
def app(dsn: str) -> Flowrun:
    """An app whose workers find nothing soon that no notification announced."""
    return Flowrun(dsn, poll=300.0, lease=1200.0)


@pytest.fixture
def echo(app: Flowrun) -> Any:
    @app.handler
    async def echo(n: Any = 0) -> Any:
        return n

    return echo


def a_flow(app: Flowrun, echo: Any, size: int = 3, **options: Any) -> Any:
    flow = app.flow("order", tags=['odd " \\ tag'], output="sum", **options)
    nodes = [flow.add(echo.job(n=n), name=f"n{n}") for n in range(size)]
    flow.add(echo.job(n=[node.result for node in nodes[:3]]).options(delay=0.01), name="sum", after=[any_of(*nodes)])
    return flow


def is_sum(result: list[int | None]) -> bool:
    """One of the first three has released it: that one's result is there, the others' if they were as quick."""
    return len(result) == 3 and result != [None] * 3 and all(one in (n, None) for n, one in enumerate(result))


async def stored(connection: asyncpg.Connection) -> dict[str, int]:
    return {table: await connection.fetchval(f"select count(*) from flowrun.{table}") for table in TABLES}


@pytest.fixture
async def mine(connection: asyncpg.Connection) -> None:
    await connection.execute("create table mine (n integer)")


async def test_committed_it_is_there_and_runs_at_once(app, echo, way, mine, connection) -> None:
    async with app.worker(concurrency=5):
        async with way() as (tx, execute, commit, _):
            run = await echo.job(n=1).dispatch(tx=tx)  # before the first statement of the caller's
            await execute("insert into mine values (1)")
            later = await echo.job(n=2).options(delay=0.05, priority=1, tags=["späť"]).dispatch(tx=tx)
            flow = await a_flow(app, echo).dispatch(tx=tx)
            many = await app.dispatch_many([echo.job(n=n) for n in (3, 4)], tx=tx)
            assert not any(one.duplicate for one in (run, later, flow, *many))
            assert (await stored(connection))["jobs"] == 0
            await commit()
            async with asyncio.timeout(PROMPT):
                assert [await one.result() for one in (run, later, *many)] == [1, 2, 3, 4]
                assert is_sum(await flow.result())
    assert await connection.fetchval("select count(*) from mine") == 1


@pytest.mark.parametrize("options", [{}, {"delay": 0.05}], ids=["ready", "scheduled"])
async def test_its_commit_wakes_a_worker_that_has_nothing_to_do(app, echo, way, options, connection, until) -> None:
    async def has_claimed_nothing_for_a_second() -> bool:
        return await connection.fetchval(
            "select max(query_start) < now() - interval '1 s' from pg_stat_activity "
            "where datname = current_database() and query like '%for update skip locked%' and pid <> pg_backend_pid()"
        )

    async with app.worker(concurrency=1):
        assert await (await echo.dispatch(n=1)).result(timeout=PROMPT) == 1
        await until(has_claimed_nothing_for_a_second)
        async with way() as (tx, _, commit, _):
            run = await echo.job(n=7).options(**options).dispatch(tx=tx)
            await commit()
        assert await run.result(timeout=PROMPT) == 7


async def test_rolled_back_it_leaves_no_trace(app, echo, way, mine, connection) -> None:
    async with way() as (tx, execute, _, rollback):
        await echo.job(n=1).options(key="k", delay=5.0).dispatch(tx=tx)
        await execute("insert into mine values (1)")
        await app.dispatch_many([echo.job(n=n) for n in (3, 4)], tx=tx)
        await a_flow(app, echo, key="k").dispatch(tx=tx)
        await rollback()
    assert set((await stored(connection)).values()) == {0}
    assert await connection.fetchval("select count(*) from mine") == 0


async def test_a_conflict_of_keys_leaves_the_transaction_usable(app, echo, way, mine, connection) -> None:
    async with app:
        job = await echo.job(n=1).options(key="k").dispatch()
        flow = await a_flow(app, echo, key="k").dispatch()
        before = await stored(connection)
        async with way() as (tx, execute, commit, _):
            await execute("insert into mine values (1)")
            again = await echo.job(n=2).options(key="k").dispatch(tx=tx)
            assert (again.id, again.duplicate) == (job.id, True)
            same = await a_flow(app, echo, key="k").dispatch(tx=tx)
            assert (same.id, same.duplicate, same["sum"].id) == (flow.id, True, flow["sum"].id)
            with pytest.raises(DuplicateKey, match=str(job.id)):
                await app.dispatch_many(
                    [
                        echo.job(n=3).options(key="new", key_ttl=60.0),
                        echo.job(n=4).options(key="k", on_conflict="raise"),
                    ],
                    tx=tx,
                )
            await execute("insert into mine values (2)")
            await commit()
        assert await stored(connection) == before
        assert await connection.fetchval("select count(*) from mine") == 2


async def test_replaced_in_the_transaction(app, echo, way, connection) -> None:
    async with app:
        old_job = await echo.job(n=1).options(key="k").dispatch()
        old_flow = await a_flow(app, echo, key="k").dispatch()
        for undo in (True, False):
            async with way() as (tx, _, commit, rollback):
                job = await echo.job(n=2).options(key="k", on_conflict="replace").dispatch(tx=tx)
                flow = await a_flow(app, echo, key="k", on_conflict="replace").dispatch(tx=tx)
                assert not job.duplicate
                assert not flow.duplicate
                await (rollback() if undo else commit())
            held = {row[0] for row in await connection.fetch("select id from flowrun.keys")}
            assert held == ({old_job.id, old_flow.id} if undo else {job.id, flow.id})
    async with app.worker(concurrency=2):
        assert await job.result(timeout=10) == 2
        assert is_sum(await flow.result(timeout=10))
    assert (await stored(connection))["flows"] == 1


async def test_a_large_flow_is_not_copied(app, echo, way, connection) -> None:
    async with way() as (tx, _, commit, _):
        await a_flow(app, echo, size=insert.COPY_FROM + 10, key="big").dispatch(tx=tx)
        await commit()
    counts = await stored(connection)
    assert (counts["ready"], counts["jobs"]) == (insert.COPY_FROM + 10, insert.COPY_FROM + 12)


async def test_the_app_need_not_be_open(app, echo, way, connection) -> None:
    async with way() as (tx, _, commit, _):
        run = await echo.job(n=7).dispatch(tx=tx)
        flow = await a_flow(app, echo, key="k").dispatch(tx=tx)
        assert (await a_flow(app, echo, key="k").dispatch(tx=tx))["n0"].id == flow["n0"].id
        await commit()
    async with app.worker(concurrency=2):
        assert await run.result(timeout=10) == 7


async def test_an_aborted_transaction(app, echo, way) -> None:
    async with way() as (tx, execute, _, rollback):
        with pytest.raises(Exception, match="division by zero"):
            await execute("select 1/0")
        for options in ({}, {"key": "k"}):
            with pytest.raises(DatabaseError, match="aborted by an earlier error; roll it back"):
                await echo.job(n=1).options(**options).dispatch(tx=tx)
        await rollback()


@pytest.mark.parametrize("options", [{}, {"key": "k"}], ids=["no key", "key"])
async def test_a_read_only_transaction(app, echo, way, options) -> None:
    async with way() as (tx, execute, _, rollback):
        await execute("set transaction read only")
        with pytest.raises(DatabaseError, match="is read-only"):
            await echo.job(n=1).options(**options).dispatch(tx=tx)
        await rollback()


@pytest.mark.parametrize("name", ["asyncpg", "asyncpg-pool", "sqlalchemy-asyncpg", "sqlalchemy-psycopg", "psycopg"])
async def test_a_connection_that_is_closed(app, echo, dsn, name) -> None:
    async with WAYS[name](dsn) as (tx, _, _, rollback):
        await rollback()
    for options in ({}, {"key": "k"}):
        with pytest.raises(DatabaseError, match="tx= (cannot be used|was lost)"):
            await echo.job(n=1).options(**options).dispatch(tx=tx)


async def test_a_session_whose_backend_was_killed(app, echo, way, connection) -> None:
    async with way() as (tx, execute, _, _):
        await execute("set application_name = 'doomed'")
        await connection.fetch(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'doomed'"
        )
        with pytest.raises(DatabaseError, match="tx="):
            await echo.job(n=1).dispatch(tx=tx)


@pytest.mark.parametrize("name", ["asyncpg", "psycopg", "sqlalchemy-asyncpg", "sqlalchemy-psycopg"])
async def test_without_a_transaction_it_is_committed_at_once_and_as_a_whole(app, echo, dsn, connection, name) -> None:
    engine: Any = None
    tx: Any
    if name == "asyncpg":
        tx = await asyncpg.connect(dsn)
    elif name == "psycopg":
        tx = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    else:
        engine = create_async_engine(
            dsn.replace("postgresql://", f"postgresql+{name.partition('-')[2]}://"), isolation_level="AUTOCOMMIT"
        )
        tx = await engine.connect()
    async with app.worker(concurrency=2):
        run = await echo.job(n=1).options(key="k").dispatch(tx=tx)
        flow = await a_flow(app, echo, key="k").dispatch(tx=tx)
        assert (await a_flow(app, echo, key="k").dispatch(tx=tx)).id == flow.id
        async with asyncio.timeout(PROMPT):
            assert await run.result() == 1
            assert is_sum(await flow.result())
        before = await stored(connection)
        with pytest.raises(DuplicateKey):
            await app.dispatch_many(
                [echo.job(n=2).options(key="new"), echo.job(n=3).options(key="k", on_conflict="raise")], tx=tx
            )
        assert await stored(connection) == before
    await tx.close()
    if engine is not None:
        await engine.dispose()


async def test_a_psycopg_connection_before_its_first_statement_commits_nothing_by_itself(
    app, echo, dsn, connection
) -> None:
    """Its own block, `connection.transaction()`, would begin and commit a transaction there."""
    async with await psycopg.AsyncConnection.connect(dsn) as tx:
        await echo.job(n=1).options(key="k").dispatch(tx=tx)
        assert tx.info.transaction_status.name == "INTRANS"
        assert (await stored(connection))["jobs"] == 0
        await tx.rollback()
    assert (await stored(connection))["keys"] == 0


async def test_a_session_goes_on_with_what_it_had(app, echo, dsn, mine, connection) -> None:
    """Neither the savepoint nor the statements go past the session: a `begin()` block commits all of it."""
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        async with session.begin():
            run = await a_flow(app, echo, key="k").dispatch(tx=session)
            assert await session.scalar(text("select count(*) from flowrun.jobs")) == 5
            async with session.begin_nested() as nested:
                await echo.job(n=1).dispatch(tx=session)
                await nested.rollback()
            await session.execute(text("insert into mine values (1)"))
    await engine.dispose()
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 5
    assert await connection.fetchval("select id from flowrun.flows") == run.id
    assert await connection.fetchval("select count(*) from mine") == 1


async def test_what_is_no_connection_is_refused_with_what_is(app, echo, dsn, connection) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    sync = await asyncio.to_thread(psycopg.connect, dsn)
    for wrong in (engine, sync, connection.transaction(), "postgresql://", 5, True, dict):
        with pytest.raises(
            ConfigurationError, match="tx= takes an asyncpg connection, a SQLAlchemy AsyncSession .* got"
        ):
            await echo.job(n=1).dispatch(tx=wrong)
        with pytest.raises(ConfigurationError, match="or a psycopg AsyncConnection"):
            await a_flow(app, echo).dispatch(tx=wrong)
        with pytest.raises(ConfigurationError):
            await app.dispatch_many([echo.job(n=1)], tx=wrong)
    await asyncio.to_thread(sync.close)
    await engine.dispose()


async def test_a_database_without_flowruns_tables(app, echo, way, connection) -> None:
    await connection.execute("drop schema flowrun cascade")
    async with way() as (tx, _, _, rollback):
        with pytest.raises(MigrationNeeded, match="flowrun migrate"):
            await echo.job(n=1).dispatch(tx=tx)
        await rollback()


async def test_an_error_that_asks_for_a_repeat_stays_what_it_is(app, echo, dsn, connection) -> None:
    """Whoever repeats a serializable transaction looks for the library's own exception."""
    async with app:
        async with over_asyncpg(dsn) as (tx, execute, _, rollback):
            await execute("set transaction isolation level repeatable read")
            await execute("select 1 from flowrun.jobs")
            await echo.job(n=1).options(key="k").dispatch()
            with pytest.raises(asyncpg.SerializationError):
                await echo.job(n=1).options(key="k").dispatch(tx=tx)
            await rollback()


async def test_a_dispatch_that_is_cut_while_it_waits_leaves_the_transaction_to_its_owner(
    app, echo, way, dsn, connection, until
) -> None:
    """Another transaction has the key: the dispatch waits for it, can be cancelled, and leaves no key behind."""
    first = await asyncpg.connect(dsn)
    one = first.transaction()
    await one.start()
    await echo.job(n=1).options(key="k").dispatch(tx=first)
    async with way() as (tx, _, _, rollback):
        waiting = asyncio.create_task(echo.job(n=2).options(key="k").dispatch(tx=tx))

        async def waits() -> bool:
            return bool(
                await connection.fetchval(
                    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
                )
            )

        await until(waits)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await rollback()
    await one.commit()
    await first.close()
    assert (await stored(connection))["jobs"] == 1


async def test_the_libraries_are_imported_for_those_who_use_them_only(dsn) -> None:
    program = f"""
import asyncio, sys, asyncpg
from flowrun import Flowrun
app = Flowrun({dsn!r})
@app.handler
async def nothing() -> None: ...
async def main():
    connection = await asyncpg.connect({dsn!r})
    await nothing.job().options(key="k").dispatch(tx=connection)
    await connection.close()
asyncio.run(main())
print(*sorted({{"psycopg", "sqlalchemy"}} & set(sys.modules)))
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""
