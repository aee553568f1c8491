"""What others do to a database flowrun lives in: each has a defined end, and a message that says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from flowrun import DatabaseError, DatabaseUnavailable, Flowrun
from flowrun.store import pool
from flowrun.worker import intake, settler

EVERYTHING = "select, insert, update, delete on all tables in schema flowrun"


class Role:
    """A role that may do what a worker does, and what its settings let it."""

    def __init__(self, name: str, dsn: str, owner: asyncpg.Connection) -> None:
        self.name, self.owner = name, owner
        self.dsn = dsn.replace("//flowrun@", f"//{name}@")

    async def set(self, **settings: str) -> None:
        for name, value in settings.items():
            await self.owner.execute(f"alter role {self.name} set {name} = {value}")

    async def disconnect(self) -> None:
        """End its sessions."""
        await self.owner.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1", self.name
        )


@pytest.fixture
async def role(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[Role]:
    role = Role(f"neighbour_{uuid4().hex[:8]}", dsn, connection)
    await connection.execute(f"create role {role.name} login; grant usage on schema flowrun to {role.name}")
    await connection.execute(f"grant {EVERYTHING} to {role.name}")
    yield role
    await role.disconnect()
    await connection.execute(f"drop owned by {role.name}; drop role {role.name}")


def counting(dsn: str) -> Flowrun:
    app = Flowrun(dsn, poll=0.2, lease=5.0)

    @app.handler
    async def count(n: int, pause: float = 0.0) -> int:
        await asyncio.sleep(pause)
        return n + 1

    return app


async def works(app: Flowrun) -> None:
    """A flow with a join, a delay and a reference goes to its end."""
    flow = app.flow("works")
    first = flow.add(app.job("count", {"n": 1}, delay=0.05), name="first")
    second = flow.add(app.job("count", {"n": 1, "pause": 0.3}), name="second")
    flow.add(app.job("count", {"n": first.result}), after=[first, second], name="last")
    assert await (await flow.dispatch()).result(timeout=30) == 3


async def test_settings_of_the_role_are_not_flowruns(role: Role) -> None:
    """Timeouts that would cut a worker off, another isolation, a search_path without us, old-fashioned strings."""
    await role.set(
        statement_timeout="'10ms'", lock_timeout="'1ms'", idle_in_transaction_session_timeout="'50ms'",
        idle_session_timeout="'100ms'", default_transaction_isolation="serializable", search_path="nowhere",
        datestyle="'German'", timezone="'Asia/Kathmandu'", intervalstyle="sql_standard", bytea_output="escape",
        standard_conforming_strings="off", enable_indexscan="off", extra_float_digits="-10",
    )  # fmt: skip
    app = counting(role.dsn)
    async with app.worker():
        await works(app)


async def test_a_transaction_that_stays_open_for_ever(app: Flowrun, connection: asyncpg.Connection) -> None:
    """It keeps dead rows, not jobs: 300 runs of 30 jobs go on under the oldest of snapshots."""

    @app.handler
    async def work() -> None: ...

    async with connection.transaction(isolation="repeatable_read"):
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 0
        async with app.worker(concurrency=10):
            runs = await app.dispatch_many([work.job() for _ in range(3000)])
            await asyncio.gather(*(run.result(timeout=30) for run in runs[-100:]))
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 0


async def test_somebodys_alter_holds_a_lock(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until
) -> None:
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "100ms")
    app = counting(dsn)
    async with app.worker():
        async with connection.transaction():
            await connection.execute(
                "alter table flowrun.ready add column theirs integer; alter table flowrun.finished add column theirs integer"
            )
            with pytest.raises(
                DatabaseError, match=r"lock timeout; somebody holds a lock .*`flowrun doctor` names who"
            ):
                await app.job("count", {"n": 1}).dispatch()
            await until(lambda: "cannot claim (canceling" in caplog.text)
            assert "`flowrun doctor` names who" in caplog.text
        await works(app)
    assert await connection.fetchval("select count(*) from flowrun.jobs where flow_id is null and kind = 0") == 0


async def test_a_lock_on_other_tables_costs_a_worker_no_lease(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    # Sooner than PostgreSQL looks for deadlocks: a statement of the worker may hold one of these and want another.
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "100ms")
    others = "jobs, finished, scheduled, deadlines, cancels, leases, schedules, ready, queues"
    app = Flowrun(dsn, lease=1.0)
    async with app.worker():
        async with connection.transaction():
            await connection.execute(f"set local search_path = flowrun; lock table {others} in access exclusive mode")
            later = "select expires_at > $1::timestamptz + interval '4 seconds' from flowrun.workers"
            since = await connection.fetchval("select clock_timestamp()")

            async def lives_on() -> bool:
                return bool(await connection.fetchval(later, since))

            await until(lives_on, 30.0)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_lock_that_comes_between_a_settle_and_what_it_released(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The worker has the next job already, and cannot read what it is given: it gives the job back, and lives on.

    Or its connection is lost in that moment. Either way it has nothing else to settle.
    """
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "100ms")
    refused = 0

    async def take_in(*args: Any) -> Any:
        nonlocal refused
        if refused:
            return await intake.take_in(*args)
        async with connection.transaction():
            await connection.execute("lock table flowrun.finished, flowrun.jobs in access exclusive mode")
            if lost:
                args[1].terminate()
            try:
                return await intake.take_in(*args)
            except (*pool.LOST, asyncpg.exceptions.LockNotAvailableError):
                refused += 1
                raise

    monkeypatch.setattr(settler, "take_in", take_in)
    app = counting(dsn)
    async with app.worker():
        flow = app.flow("reads")
        first = flow.add(app.job("count", {"n": 1}), name="first")
        second = flow.add(app.job("count", {"n": first.result}), name="second")
        flow.add(app.job("count", {"n": first.result}), after=second, name="third")
        assert await (await flow.dispatch()).result(timeout=30) == 3
    assert refused
    assert await connection.fetchval("select count(*) from flowrun.attempts") == 0


async def test_a_worker_leaves_though_somebody_holds_a_lock_that_its_settle_needs(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until
) -> None:
    """It tries for ten seconds; what is not settled then runs again, elsewhere."""
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "100ms")
    app = counting(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("lock table flowrun.finished in share mode")
    async with asyncio.timeout(60), app.worker(grace=1.0):
        await app.job("count", {"n": 1}).dispatch()
        await until(lambda: "cannot settle (canceling" in caplog.text)
    await transaction.rollback()
    async with app.worker():
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 1
        await until(lambda: connection.fetchval("select outcome = 1 from flowrun.finished"))


async def test_a_failover_to_a_server_that_only_reads(role: Role, caplog: pytest.LogCaptureFixture, until) -> None:
    app = counting(role.dsn)
    async with app.worker():
        await works(app)
        await role.set(default_transaction_read_only="on")
        await role.disconnect()
        with pytest.raises(
            DatabaseUnavailable, match="read-only transaction; it is a standby, .*point the DSN at the primary"
        ):
            await app.job("count", {"n": 1}).dispatch()
        await until(lambda: "cannot claim (cannot execute" in caplog.text)
        await role.set(default_transaction_read_only="off")
        await works(app)  # whoever found it read-only has another connection by now
        await role.disconnect()
        await works(app)


async def test_a_role_without_rights(role: Role, caplog: pytest.LogCaptureFixture, until) -> None:
    app = counting(role.dsn)
    async with app.worker():
        await works(app)
        for table in ("ready", "leases", "workers"):
            await role.owner.execute(f"revoke all on flowrun.{table} from {role.name}")
        with pytest.raises(
            DatabaseError,
            match=r"forbids it: permission denied for table (ready|workers|leases); `flowrun roles` prints",
        ):
            await app.job("count", {"n": 1}).dispatch()
        await until(lambda: "cannot claim (permission denied for table" in caplog.text)
        await until(lambda: "cannot send heartbeats (permission denied for table workers" in caplog.text)
        await role.owner.execute(f"grant {EVERYTHING} to {role.name}")
        await works(app)
    await role.owner.execute(f"revoke all on schema flowrun from {role.name}")
    with pytest.raises(DatabaseError, match=r"permission denied for schema flowrun; `flowrun roles` prints"):
        async with app.worker():
            pass


async def test_results_wait_for_a_right_that_was_taken_away(
    role: Role, caplog: pytest.LogCaptureFixture, until
) -> None:
    """A settle that is forbidden is no fault of the job: it is not failed, and is settled when it may be."""
    app = counting(role.dsn)
    async with app.worker():
        run = await app.job("count", {"n": 1, "pause": 0.3}).dispatch()
        await role.owner.execute(f"revoke insert on flowrun.finished from {role.name}")
        await until(lambda: "cannot settle (permission denied for table finished" in caplog.text)
        await role.owner.execute(f"grant {EVERYTHING} to {role.name}")
        assert await run.result(timeout=20) == 2
        assert await run.attempts() == []


async def test_a_database_full_of_connections(role: Role, caplog: pytest.LogCaptureFixture, until) -> None:
    app = counting(role.dsn)
    async with app:
        await works_without_worker(app)
        await role.owner.execute(f"alter role {role.name} connection limit 1")
        with pytest.raises(
            DatabaseUnavailable, match=r"too many connections for role .*; it has no connection free: .*pool_size"
        ):
            await Flowrun(role.dsn).__aenter__()

        async def lifted() -> None:
            await until(lambda: "cannot send heartbeats (too many connections" in caplog.text)
            await role.owner.execute(f"alter role {role.name} connection limit -1")

        lifting = asyncio.ensure_future(lifted())
        async with app.worker():  # it says what it waits for, and starts when there is room
            await lifting
            await works(app)


async def works_without_worker(app: Flowrun) -> None:
    await app.job("count", {"n": 1}).dispatch()


async def test_the_pooled_statement_timeout_says_what_to_do(role: Role) -> None:
    """Through a pooler flowrun cannot set its own."""
    await role.set(statement_timeout="'200ms'", lock_timeout="0")
    app = Flowrun(role.dsn, pooler=True)
    async with app:
        async with role.owner.transaction():
            await role.owner.execute("lock table flowrun.ready in access exclusive mode")
            with pytest.raises(
                DatabaseError, match=r"statement timeout; a statement_timeout counts where .*raise it for this role"
            ):
                await app.job("count", {"n": 1}).dispatch()
