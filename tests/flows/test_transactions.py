"""A handler's own transaction, in which its job is settled."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from flowrun import Flowrun, FlowrunError, Job, JobFailed, LeaseLost, backoff
from flowrun.core.states import Outcome
from flowrun.store import control
from flowrun.store.bulk import By
from flowrun.store.finish import Settled
from flowrun.store.statement import Statements

SQL = Statements()


@pytest.fixture
async def ledger(connection):
    await connection.execute("create table ledger (what text not null)")

    async def rows() -> list[str]:
        return sorted(row[0] for row in await connection.fetch("select what from ledger"))

    return rows


def write(tx, what: str):
    return tx.connection.execute("insert into ledger values ($1)", what)


async def test_all_in_one_commit(app, step, ran, ledger, connection) -> None:
    seen = {}

    @app.handler
    async def pay(job: Job) -> str:
        async with job.transaction() as tx:
            await write(tx, "paid")
            await app.job("step", {"name": "dispatched"}).dispatch()
            job.spawn(app.job("step", {"name": "spawned"}), name="spawned")
            await tx.complete({"paid": True})
            seen["before"] = await connection.fetchval("select count(*) from flowrun.finished"), await ledger()
            with pytest.raises(FlowrunError, match="is settled once"):
                await tx.complete(1)
            with pytest.raises(FlowrunError, match="before tx.complete"):
                await app.job("step").dispatch()
        seen["after"] = (
            await connection.fetchval("select count(*) from flowrun.finished where id = $1", job.id),
            await ledger(),
        )
        await app.job("step", {"name": "afterwards"}).dispatch()
        return "this counts no more"

    flow = app.flow("f")
    paid = flow.add(pay.job(), name="pay")
    flow.add(step("child", given=paid.result), name="child")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        status = await run.wait(timeout=10)
        assert {name: job.state for name, job in status.nodes.items()} == dict.fromkeys(
            ["pay", "spawned", "child"], "succeeded"
        )
        assert await run["pay"].result(timeout=5) == {"paid": True}
        while len(ran) < 4:
            await asyncio.sleep(0.01)
    assert seen == {"before": (0, []), "after": (1, ["paid"])}
    assert set(ran) == {"dispatched", "spawned", "child", "afterwards"}


async def test_an_error_takes_all_of_it_back(app, ran, ledger) -> None:
    @app.handler(attempts=3, backoff=backoff.constant(0.01))
    async def pay(job: Job) -> None:
        async with job.transaction() as tx:
            await write(tx, f"attempt {job.attempt}")
            await app.job("step", {"name": f"attempt {job.attempt}"}).dispatch()
            if job.attempt == 1:
                raise ValueError("before it is complete")
            await tx.complete(job.attempt)
            if job.attempt == 2:
                raise ValueError("after it is complete")

    async with app, app.worker(concurrency=2):
        run = await pay.dispatch()
        assert await run.result(timeout=10) == 3
        assert [one.message for one in await run.attempts()] == ["before it is complete", "after it is complete"]
        while not ran:
            await asyncio.sleep(0.01)
    assert await ledger() == ["attempt 3"]
    assert ran == ["attempt 3"]


async def test_without_complete_it_is_a_transaction(app, ledger) -> None:
    @app.handler
    async def pay(job: Job) -> str:
        async with job.transaction() as tx:
            await write(tx, "one")
        with pytest.raises(ZeroDivisionError):
            async with job.transaction() as tx:
                await write(tx, "two")
                raise ZeroDivisionError
        return "done"

    async with app, app.worker(concurrency=2):
        assert await (await pay.dispatch()).result(timeout=10) == "done"
    assert await ledger() == ["one"]


async def test_an_error_after_the_commit_changes_nothing(app, ledger) -> None:
    @app.handler
    async def pay(job: Job) -> None:
        async with job.transaction() as tx:
            await tx.complete("paid")
        raise ValueError("too late")

    async with app, app.worker(concurrency=2):
        run = await pay.dispatch()
        assert await run.result(timeout=10) == "paid"
        assert await run.attempts() == []


async def test_a_job_that_was_decided_meanwhile(app, ledger, connection) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    raised = []

    @app.handler
    async def pay(job: Job) -> None:
        async with job.transaction() as tx:
            await write(tx, "paid")
            begun.set()
            await go_on.wait()
            try:
                await tx.complete("paid")
            except LeaseLost as error:
                raised.append(str(error))
                raise

    async with app, app.worker(concurrency=2):
        run = await pay.dispatch()
        await begun.wait()
        # Without telling the worker, which would interrupt the handler first.
        await control.decide(connection, SQL, run.id, Outcome.SUCCEEDED, '"by hand"', By(), Settled())
        go_on.set()
        assert await run.result(timeout=10) == "by hand"
        while not raised:
            await asyncio.sleep(0.01)
    assert "is not this worker's any more" in raised[0]
    assert await ledger() == []


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_what_is_interrupted_is_rolled_back(app, ledger, how) -> None:
    begun = asyncio.Event()

    @app.handler(attempts=1, timeout=0.2 if how == "timeout" else 30.0)
    async def pay(job: Job) -> None:
        async with job.transaction() as tx:
            await write(tx, "paid")
            begun.set()
            await asyncio.sleep(30)

    async with app, app.worker(concurrency=2):
        run = await pay.dispatch()
        await begun.wait()
        if how == "cancel":
            await run.cancel()
        status = await run.wait(timeout=10)
        assert status.state == ("failed" if how == "timeout" else "cancelled")
        assert await ledger() == []

        @app.handler
        async def other() -> None: ...

    async with app, app.worker(concurrency=2):
        await (await other.dispatch()).result(timeout=10)


async def test_a_result_that_cannot_be_stored(app, ledger) -> None:
    @app.handler
    async def pay(job: Job) -> None:
        async with job.transaction() as tx:
            await write(tx, "paid")
            await tx.complete(float("nan"))

    async with app, app.worker(concurrency=2):
        with pytest.raises(JobFailed, match="NaN"):
            await (await pay.dispatch()).result(timeout=10)
    assert await ledger() == []


async def test_where_no_worker_is() -> None:
    with pytest.raises(FlowrunError, match="while a worker runs the job"):
        Job(id=None, type="x").transaction()  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["commit", "rollback", "an open transaction"])
async def test_what_a_handler_does_to_the_session_is_undone_before_it_is_used_again(dsn, how) -> None:
    app = Flowrun(dsn, pool_size=1)
    session = (
        "select pg_backend_pid(), current_setting('work_mem'), current_setting('search_path'), current_user::text, "
        "current_setting('lock_timeout'), to_regclass('pg_temp.scratch') is null, "
        "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), "
        "(select count(*) from pg_listening_channels())"
    )

    @app.handler(attempts=1)
    async def spoils(job: Job) -> None:
        async with job.transaction() as tx:
            if how != "commit":
                await tx.connection.execute("commit; begin")
            await tx.connection.execute(
                "set work_mem = '77MB'; set search_path = nowhere; set lock_timeout = 1; set role pg_monitor; "
                "create temp table scratch (); listen loudly; select pg_advisory_lock(7)"
            )
            if how == "an open transaction":
                await tx.connection.execute("commit; begin")
            if how == "rollback":
                await tx.connection.execute("savepoint deep")
                raise ValueError("no")

    async with app.worker(concurrency=1):
        async with app.client.database.acquire() as pooled:
            before = tuple(await pooled.fetchrow(session))
        await (await spoils.dispatch()).wait(timeout=20)
        async with app.client.database.acquire() as pooled:
            assert not pooled.is_in_transaction()
            after = tuple(await pooled.fetchrow(session))
    assert after[1:] == before[1:]
    assert after[0] == before[0], "the session is kept"
    assert after[-3:] == (True, 0, 0)


@pytest.mark.parametrize("how", ["failed", "ended"])
async def test_a_transaction_that_failed_or_ended_inside_settles_nothing(app, ledger, how) -> None:
    """A commit after a swallowed error is a rollback, and the server does not say so."""
    done: list[int] = []

    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def pay(job: Job) -> str:
        async with job.transaction() as tx:
            await write(tx, f"attempt {job.attempt}")
            await tx.complete("paid")
            if job.attempt == 1 and how == "failed":
                with contextlib.suppress(asyncpg.PostgresError):
                    await tx.connection.execute("select 1 / 0")
            elif job.attempt == 1:
                await tx.connection.execute("rollback")
        done.append(job.attempt)
        return "this counts no more"

    async with app.worker():
        run = await pay.dispatch()
        assert await run.result(timeout=20) == "paid"
        (attempt,) = await run.attempts()
    assert done == [2]
    assert await ledger() == ["attempt 2"]
    assert attempt.error_type.endswith("InFailedSQLTransactionError" if how == "failed" else "FlowrunError")
