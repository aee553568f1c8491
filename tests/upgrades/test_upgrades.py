"""From every schema there was to the newest: what was in flight goes on to its end, and nobody has to stop for it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flowrun import DatabaseError, Flowrun, Job, SchemaTooNew
from flowrun.store import migrate
from flowrun.store.migrate import Migration
from tests.model import invariants
from tests.store.stage import connections, until_waiting

HERE = Path(__file__).parent
SHIPPED = migrate.migrations()
STATES = {int(file.stem): file for file in HERE.glob("*.sql")}


def ship(monkeypatch: pytest.MonkeyPatch, *steps: Migration) -> None:
    monkeypatch.setattr(migrate, "migrations", lambda: steps)


def order_app(dsn: str) -> Flowrun:
    """The app whose jobs the states hold."""
    app = Flowrun(dsn, poll=0.2, lease=4.0)

    @app.handler(attempts=3)
    async def count(n: int = 0, also: object = None) -> int:
        return n + 1

    @app.handler(attempts=3)
    async def again(job: Job) -> str:
        assert await job.step("once", lambda: 0) == 41  # remembered by the worker of that time
        return "at last"

    @app.handler(attempts=1)
    async def never() -> None:
        raise ValueError("never")

    @app.handler
    async def hangs(n: int) -> int:
        return n + 1

    @app.handler
    async def items() -> list[int]:
        return [1, 2, 3]

    return app


@pytest.mark.parametrize("version", [step.number for step in SHIPPED])
async def test_what_was_in_flight_goes_on(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """A worker was killed in the middle; then the schema was migrated; then a worker of today comes."""
    await connection.execute("drop schema flowrun cascade")
    ship(monkeypatch, *SHIPPED[:version])
    await migrate.migrate(connection, "flowrun")
    newest = max(number for number in STATES if number <= version)
    await connection.execute(STATES[newest].read_text())
    ship(monkeypatch, *SHIPPED)
    assert await migrate.migrate(connection, "flowrun") == list(SHIPPED[version:])
    assert await migrate.migrate(connection, "flowrun") == []
    await connection.execute("update flowrun.workers set expires_at = now() - interval '1 second'")
    app = order_app(dsn)
    async with app.worker(queues=["default", "later", "narrow"]):
        (found,) = await app.flows.list()
        run = await app.get_flow(found.id)
        await run.signal("approved", "yes")
        status = await run.wait(timeout=30)
        assert status.state == "succeeded"
        assert {name: job.state for name, job in status.nodes.items() if job.state != "succeeded"} == {
            "never": "failed", "refused it": "skipped"
        }  # fmt: skip
        assert await run["after slow"].result(timeout=5) == 4
        assert await run["mapped"].result(timeout=5) == [2, 3, 4]
        await app.drain(timeout=30)
    left = "select count(*) from flowrun.jobs j where not exists (select from flowrun.finished f where f.id = j.id)"
    assert await connection.fetchval(left) == 0
    outcomes = dict(
        await connection.fetch("select outcome, count(*) from flowrun.finished where spoils is null group by 1")
    )
    assert outcomes.get(3) == 1  # cancelled then, cancelled now
    await invariants.check(connection, at_rest=True)


MORE = Migration(
    900,
    "more",
    """alter table flowrun.ready add column more integer; alter table flowrun.jobs add column more text default 'x';
    alter table flowrun.finished add column more integer; alter table flowrun.leases add column more integer;
    create table flowrun.more (id integer); create index jobs_more on flowrun.jobs (more) where more is null""",
)


async def test_workers_work_on_while_the_schema_changes_and_start_on_it_afterwards(
    app: Flowrun, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of the version before: they do not know what is new, and need not."""

    @app.handler
    async def count(n: int) -> int:
        return n + 1

    dispatched: list[Any] = []
    done = asyncio.Event()

    async def dispatch() -> None:
        while not done.is_set() or len(dispatched) < 300:
            flow = app.flow("f")
            first = flow.add(count.job(n=0))
            flow.add(count.job(n=first.result), after=first)
            dispatched.append(await flow.dispatch())
            await asyncio.sleep(0.001)

    async with app.worker():
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatch())
            ship(monkeypatch, *SHIPPED, MORE)
            assert await migrate.migrate(connection, "flowrun") == [MORE]
            done.set()
        assert [await run.result(timeout=30) for run in dispatched] == [2] * len(dispatched)
    ship(monkeypatch, *SHIPPED)
    async with app.worker():
        assert await (await count.dispatch(n=1)).result(timeout=30) == 2
    with pytest.raises(SchemaTooNew):
        await app.migrate()


async def test_a_schema_that_breaks_this_version_is_refused(
    app: Flowrun, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(monkeypatch, *SHIPPED, MORE._replace(name="breaks_more", text="select 1"))
    await migrate.migrate(connection, "flowrun")
    ship(monkeypatch, *SHIPPED)
    app.handler("x")(lambda: None)
    with pytest.raises(
        SchemaTooNew, match=rf"is at 900, this flowrun knows {SHIPPED[-1].number}: upgrade flowrun in this process"
    ):
        async with app.worker():
            pass


async def test_a_migration_waits_for_nobody_for_long(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one that waits for a table, everybody waits who uses it: so it gives up soon, and tries again."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(migrate, "PAUSE", 0.05)
    ship(monkeypatch, *SHIPPED, MORE)
    other = await asyncpg.connect(dsn)
    reading = other.transaction()
    await reading.start()
    await other.fetch("select * from flowrun.ready")
    with pytest.raises(DatabaseError, match=r"nothing of it was changed: .*lock timeout; .*`flowrun doctor` names who"):
        await migrate.migrate(connection, "flowrun")
    assert await connection.fetchval("select to_regclass('flowrun.more')") is None
    monkeypatch.setattr(migrate, "PAUSE", 0.5)

    async def ends() -> None:
        await asyncio.sleep(0.3)
        await reading.rollback()

    applied, _ = await asyncio.gather(migrate.migrate(connection, "flowrun"), ends())
    assert applied == [MORE]
    await other.close()


@pytest.mark.deadlocks("planned")
async def test_a_migration_that_meets_a_deadlock_is_tried_again(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one table after the other, and who works takes them in another order."""
    monkeypatch.setattr(migrate, "PAUSE", 0.05)
    ship(monkeypatch, *SHIPPED, MORE)
    async with connections(dsn, 2) as (other, watch):
        await other.execute("set deadlock_timeout = '60s'")  # the migration is the one that notices
        working = other.transaction()
        await working.start()
        await other.execute("lock table flowrun.finished in row exclusive mode")
        migrating = asyncio.ensure_future(migrate.migrate(connection, "flowrun"))
        await until_waiting(watch, connection)
        await other.fetch("select from flowrun.ready")
        await working.rollback()
        assert await migrating == [MORE]


async def test_one_that_is_cut_off_leaves_nothing(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    ship(monkeypatch, *SHIPPED, MORE._replace(text=MORE.text + "; select pg_sleep(60)"))
    doomed = await asyncpg.connect(dsn)
    migrating = asyncio.ensure_future(migrate.migrate(doomed, "flowrun"))
    await until(
        lambda: connection.fetchval(
            "select wait_event = 'PgSleep' from pg_stat_activity where pid = $1", doomed.get_server_pid()
        )
    )
    await connection.execute("select pg_terminate_backend($1, 5000)", doomed.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await migrating
    assert await connection.fetchval("select to_regclass('flowrun.more')") is None
    ship(monkeypatch, *SHIPPED, MORE)
    assert await migrate.migrate(connection, "flowrun") == [MORE]


DANGEROUS = re.compile(
    r"\b(drop (table|column|view|index)|rename|alter column|set not null|lock table|truncate|vacuum|cluster|concurrently|"
    r"foreign key|references|create (trigger|rule|extension)|add constraint (?!.*not valid)|add column [^,;]*not null(?![^,;]*default))\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("step", SHIPPED[1:], ids=lambda step: step.name)
def test_no_migration_does_what_the_version_before_does_not_survive(step: Migration) -> None:
    """Nor what holds a table for long: those that have to be are named ``breaks_...`` and looked at by people."""
    body = re.sub(r"--.*", "", step.text)
    if not step.name.startswith(migrate.BREAKS):
        assert not DANGEROUS.findall(body)
    for statement in body.split(";"):
        made = re.search(r"create (?:or replace )?function", statement, re.IGNORECASE)
        assert not made or re.search(r"set search_path", statement, re.IGNORECASE)
