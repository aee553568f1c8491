"""Roles as `flowrun roles` makes them, used as they would be: by those who log in with them."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from flowrun import ConfigurationError, DatabaseError, Flowrun, Settings
from flowrun.client import doctor
from flowrun.store import migrate
from flowrun.store.roles import Roles, script
from tests.security.conftest import People

DENIED = asyncpg.InsufficientPrivilegeError
SECRET = "4111-1111"


def shop(dsn: str) -> Flowrun:
    app = Flowrun(dsn, poll=0.2)

    @app.handler(attempts=1)
    async def charge(card: str, fail: bool = False) -> str:
        if fail:
            raise ValueError("declined")
        return card

    return app


async def test_a_dispatcher_dispatches_and_a_worker_works(people: People, connection: asyncpg.Connection) -> None:
    web, worker = shop(people.dsn("dispatcher")), shop(people.dsn("worker"))
    runs: list[Any] = []
    async with web:
        charge = web.job("charge", {"card": SECRET})
        runs.append(await charge.dispatch())
        runs += await web.dispatch_many([charge, charge.options(delay=0.1), charge.options(start_by=60.0, tags=["a"])])
        first = await charge.options(key="k").dispatch()
        again = await charge.options(key="k").dispatch()
        assert (again.id, again.duplicate) == (first.id, True)
        await charge.options(key="short", key_ttl=0.0001).dispatch()
        assert not (await charge.options(key="short", key_ttl=0.0001).dispatch()).duplicate
        runs.append(first)
        for size in (3, 600):  # by one statement, and copied in
            flow = web.flow("order", key=f"order-{size}", deadline=60.0)
            nodes = [flow.add(charge) for _ in range(size)]
            flow.add(web.job("charge", {"card": nodes[0].result}), after=[nodes[0].finished, *nodes[1:]])
            flow.add(charge, after=nodes[0].when(SECRET)) if size == 3 else None
            runs.append(await flow.dispatch())
            assert (await flow.dispatch()).duplicate
        own = await people.connect("dispatcher")
        async with own.transaction():
            runs.append(await charge.dispatch(tx=own))
        await own.close()
        with pytest.raises(DatabaseError, match="permission denied for table finished; `flowrun roles`"):
            await runs[0].result(timeout=5)
        for verb in (runs[0].status, runs[0].cancel, runs[0].attempts, web.failed.list, web.jobs.list):
            with pytest.raises(DatabaseError, match="permission denied"):
                await verb()
    async with worker.worker():
        for run in runs:
            found = worker.get_flow if hasattr(run, "nodes") or "Flow" in type(run).__name__ else worker.get_job
            theirs = await found(run.id)
            await theirs.result(timeout=30)
    assert not await connection.fetchval("select exists (select from flowrun.finished where outcome <> 1)")


TABLES = "select relname from pg_class where relnamespace = 'flowrun'::regnamespace and relkind in ('r', 'v')"
PAYLOADS = [
    "select args from flowrun.jobs", "select options from flowrun.jobs", "select bindings from flowrun.jobs",
    "select result from flowrun.finished", "select result from flowrun.job_status", "select value from flowrun.steps",
    "select value from flowrun.signals", "select traceback from flowrun.attempts", "select args from flowrun.failed_jobs",
    "select detail from flowrun.attempts", "select detail from flowrun.audit", "select j from flowrun.jobs j",
    "select * from flowrun.job_status", "insert into flowrun.jobs (id, queue, type, args) select id, queue, type, args from flowrun.jobs",
    "copy flowrun.jobs to stdout", "delete from flowrun.jobs returning args",
]  # fmt: skip


@pytest.mark.parametrize("role", ["dispatcher", "reader"])
async def test_neither_dispatcher_nor_reader_sees_a_payload_or_changes_what_is_there(people: People, role: str) -> None:
    app = shop(people.dsn("worker"))
    async with app.worker():
        good, bad = (
            await app.job("charge", {"card": SECRET}).dispatch(),
            await app.job("charge", {"card": SECRET, "fail": True}).dispatch(),
        )
        assert await good.result(timeout=20) == SECRET
        with pytest.raises(Exception, match="declined"):
            await bad.result(timeout=20)
    connection = await people.connect(role)
    for statement in PAYLOADS:
        with pytest.raises(DENIED):
            await connection.fetch(statement)
    for (table,) in await connection.fetch(TABLES):
        for verb in (
            f"delete from flowrun.{table}",
            f"truncate flowrun.{table}",
            f"drop table flowrun.{table}",
        ):
            with pytest.raises((DENIED, asyncpg.WrongObjectTypeError, asyncpg.ObjectNotInPrerequisiteStateError)):
                await connection.execute(verb)
    for statement in (
        "update flowrun.finished set result = '1'", "update flowrun.jobs set args = '{}'", "update flowrun.finished set outcome = 1",
        "insert into flowrun.finished (id, outcome, attempt) values (gen_random_uuid(), 1, 1)",
        "update flowrun.queues set paused = true", "create table flowrun.mine (id integer)", "create schema mine",
        "insert into flowrun.migrations values (99, 'x', 'x')", "insert into flowrun.leases values (gen_random_uuid(), 1, now(), '{}', '{}')",
        "insert into flowrun.ready (queue, priority, id, type) values ('default', 5, gen_random_uuid(), 'charge')",
        "insert into flowrun.jobs (id, queue, type, args) values (gen_random_uuid(), 'default', 'charge', '{}')",
    ):  # fmt: skip
        with pytest.raises(DENIED):
            await connection.execute(statement)
    await connection.close()


async def test_a_reader_reads(people: People) -> None:
    app = shop(people.dsn("worker"))
    async with app.worker():
        flow = app.flow("order")
        first = flow.add(app.job("charge", {"card": SECRET}), name="first")
        flow.add(app.job("charge", {"card": first.result, "fail": True}), name="second")
        run = await flow.dispatch()
        await run.wait(timeout=20)
        looking = shop(people.dsn("reader"))
        async with looking:
            found = await looking.get_flow(run.id)
            assert found["second"].id == run["second"].id
            assert (await looking.flows.list())[0].id == run.id
            assert len(await looking.workers.list()) == 1
            assert await looking.queues.list()
            with pytest.raises(DatabaseError, match="permission denied"):
                await app_dispatch(looking)
    connection = await people.connect("reader")
    columns = "id, type, state, attempt, error, finished_at"
    assert len(await connection.fetch(f"select {columns} from flowrun.job_status where flow_id = $1", run.id)) == 2
    assert SECRET not in str(await connection.fetch("select * from flowrun.flow_status"))
    await connection.close()


async def app_dispatch(app: Flowrun) -> None:
    await app.job("charge", {"card": "x"}).dispatch()


async def test_a_worker_changes_no_definitions_and_an_owner_does(
    people: People, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    worker = await people.connect("worker")
    for statement in (
        "create table flowrun.mine (id integer)", "alter table flowrun.jobs add column mine integer", "drop table flowrun.jobs",
        "create index on flowrun.jobs (type)", "drop schema flowrun cascade", "truncate flowrun.jobs", "create schema mine",
        "insert into flowrun.migrations values (99, 'x', 'x')", "update flowrun.migrations set checksum = 'x'",
        "create function flowrun.f() returns integer language sql as 'select 1'",
    ):  # fmt: skip
        with pytest.raises(DENIED):
            await worker.execute(statement)
    more = migrate.Migration(
        999, "more", "alter table flowrun.jobs add column more integer; create table flowrun.more (id integer)"
    )
    shipped = (*migrate.migrations(), more)
    monkeypatch.setattr(migrate, "migrations", lambda: shipped)
    with pytest.raises(DatabaseError, match="permission denied"):
        async with Flowrun(people.dsn("worker")) as app:
            await app.migrate()
    assert await Flowrun(people.dsn("owner")).migrate() == ["0999_more"]
    await connection.execute(script("flowrun", people.roles))
    assert await worker.fetchval("select count(*) from flowrun.more") == 0
    await worker.close()


async def test_the_doctor_knows_them(people: People) -> None:
    said = {}
    for role in ("owner", "worker", "dispatcher", "reader"):
        found = [one for one in await doctor.examine(people.dsn(role), Settings()) if one.check == "rights"]
        said[role] = [(one.level, one.found.partition(": ")[0]) for one in found]
    name = {role: f"'login_{getattr(people.roles, role)}'" for role in said}
    assert said == {
        "owner": [("ok", f"role {name['owner']} may do all that a worker does")],
        "worker": [("ok", f"role {name['worker']} may do all that a worker does")],
        "dispatcher": [("note", f"role {name['dispatcher']} may dispatch, and is no worker's")],
        "reader": [("note", f"role {name['reader']} may look, and neither dispatch nor work")],
    }


async def test_names_are_quoted_whatever_they_are(connection: asyncpg.Connection) -> None:
    schema = "We\"ird. $$ \\ 'Schema"
    await migrate.migrate(connection, schema)
    odd = Roles(
        owner='o"; drop schema flowrun cascade; --',
        worker="w'; select 1/0; --",
        dispatcher="d $$ \\'",
        reader="r\nselect 1/0;",
    )
    quoted = [f'"{name}"'.replace('o"', 'o""') for name in odd.names]
    try:
        await connection.execute(script(schema, odd))
        assert await connection.fetchval("select count(*) from pg_roles where rolname = any($1)", list(odd.names)) == 4
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 0
    finally:
        for name in quoted:
            await connection.execute(f"reassign owned by {name} to flowrun; drop owned by {name}; drop role {name}")
    for name in ("", "pg_monitor", "x" * 64, "a\x00"):
        with pytest.raises(ConfigurationError, match="a role must be a name"):
            script("flowrun", Roles(worker=name))


async def test_every_function_of_the_schema_has_its_search_path(connection: asyncpg.Connection) -> None:
    loose = """select oid::regprocedure::text from pg_proc
        where pronamespace = 'flowrun'::regnamespace and not coalesce(proconfig::text like '%search_path=%', false)"""
    assert await connection.fetch(loose) == []


async def test_the_command_prints_it(shell) -> None:
    code, out, err = await shell.run("roles", "--worker", "shop", "--schema", "other")
    assert (code, err) == (0, "")
    assert 'grant usage on schema "other" to "shop";' in out
    assert (await shell.run("roles", "--worker", "pg_shop"))[0] == 2
