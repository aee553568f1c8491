"""Whoever may only dispatch: all that the API offers it, and nothing that reaches what others dispatched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from flowrun import DatabaseError, DuplicateKey, Flowrun, mint
from flowrun.core.plan import Plan
from flowrun.store import granted, insert
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.roles import script
from flowrun.store.statement import Statements
from tests.model import wild
from tests.security.conftest import People

DENIED = asyncpg.InsufficientPrivilegeError
TABLES = (
    "jobs",
    "flows",
    "edges",
    "blocked",
    "scheduled",
    "ready",
    "deadlines",
    "keys",
    "leases",
    "cancels",
    "signals",
)
SQL = Statements("flowrun")


def shop(dsn: str) -> Flowrun:
    app = Flowrun(dsn, poll=0.2)

    @app.handler
    async def charge(card: Any = None) -> Any:
        return card

    return app


async def rows(connection: asyncpg.Connection) -> dict[str, list[Any]]:
    """All that is stored; moments as they were before or after the one of this transaction."""
    found = {}
    for table in TABLES:
        text = f"select (to_jsonb(t) - 'created_at')::text from flowrun.{table} t order by 1"  # noqa: S608
        found[table] = [json.loads(row[0]) for row in await connection.fetch(text)]
    return found


def plain(dispatched: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without who dispatched what has a key."""
    jobs = []
    for job in dispatched["jobs"]:
        options = {name: value for name, value in (job["options"] or {}).items() if name != "role"}
        jobs.append(json.dumps({**job, "options": options or None}, sort_keys=True))
    return {**dispatched, "jobs": sorted(jobs)}


def _nested(app: Flowrun, random: Random) -> Plan:
    flow = wild.wild_flow(random, app, 14)
    flow.keying = {"key": f"k{random.random()}", "key_ttl": 60.0} if random.random() < 0.3 else {}
    return app.client.plan_flow(flow).plan


async def test_what_is_stored_is_what_who_may_write_stores(app: Flowrun, connection: asyncpg.Connection) -> None:
    """Random flows with all kinds of nodes, and jobs with all options: the same rows by either way."""
    wild.register(app)
    random = Random(7)
    plans = [_nested(app, random) for _ in range(60)]
    job = app.job("act", {"do": "well", "given": {"a": [1.5, None, 'ü\n\\"']}})
    plans.append(
        app.client.plan_jobs(
            [
                job.options(delay=5.0, tags=["a"], limit=("t", 2)), job.options(start_by=60.0, priority=1, optional=True),
                job.options(key="a", key_ttl=60.0), job.options(throttle=("b", 60.0)), job.options(debounce=("c", 5.0)),
                job.options(on_failure=app.job("act", {"do": "fail"}), retention={"failed": float("inf")}),
            ]
        )
    )  # fmt: skip
    for plan in plans:
        stored = []
        for write in (insert.insert_for, granted.dispatch):
            transaction = connection.transaction()
            await transaction.start()
            for _ in range(2):  # sent again after an ambiguous commit
                assert await write(AsyncpgCaller(connection, nullcontext), SQL, plan) == {}
            for table in ("scheduled", "deadlines", "keys"):
                moment = {"scheduled": "run_at", "deadlines": "due_at", "keys": "expires_at"}[table]
                await connection.execute(f"update flowrun.{table} set {moment} = date_trunc('minute', {moment} - now() + '2030-01-01 00:00:30'::timestamptz)")  # fmt: skip # noqa: S608, E501
            stored.append(plain(await rows(connection)))
            await transaction.rollback()
        assert stored[0] == stored[1]
        assert stored[0]["jobs"]


async def test_a_large_flow(people: People, connection: asyncpg.Connection) -> None:
    web = shop(people.dsn("dispatcher"))
    async with web:
        flow = web.flow("large")
        first = flow.add(web.job("charge"))
        for _ in range(20_000):
            flow.add(web.job("charge"), after=first)
        run = await flow.dispatch()
    assert (
        await connection.fetchval("select count(*) from flowrun.edges where parent_id = $1", run["charge"].id) == 20_000
    )
    assert await connection.fetchval("select count(*) from flowrun.ready") == 1
    assert await connection.fetchval("select count(*) from flowrun.blocked") == 20_001


@asynccontextmanager
async def _over_asyncpg(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        yield connection
    await connection.close()


@asynccontextmanager
async def _over_psycopg(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def _over_sqlalchemy(dsn: str, driver: str) -> AsyncIterator[Any]:
    engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
    async with AsyncSession(engine) as session, session.begin():
        yield session
    await engine.dispose()


OVER = {
    "asyncpg": _over_asyncpg,
    "psycopg": _over_psycopg,
    "sqlalchemy over asyncpg": lambda dsn: _over_sqlalchemy(dsn, "asyncpg"),
    "sqlalchemy over psycopg": lambda dsn: _over_sqlalchemy(dsn, "psycopg"),
}


@pytest.mark.parametrize("over", OVER)
async def test_in_a_transaction_of_its_own(people: People, connection: asyncpg.Connection, over: str) -> None:
    web = shop(people.dsn("dispatcher"))  # not opened
    async with OVER[over](people.dsn("dispatcher")) as tx:
        job = await web.job("charge", {"card": 1}).dispatch(tx=tx)
        again = [await web.job("charge").options(key="k").dispatch(tx=tx) for _ in range(2)]
        assert [one.duplicate for one in again] == [False, True]
        with pytest.raises(DuplicateKey):
            await web.job("charge").options(key="k", on_conflict="raise").dispatch(tx=tx)
        flow = web.flow("order", key="o", deadline=60.0)
        flow.add(web.job("charge"), name="a")
        first = await flow.dispatch(tx=tx)
        second = await flow.dispatch(tx=tx)
        assert second.duplicate
        assert second["a"].id == first["a"].id
    async with shop(people.dsn("worker")).worker() as _, shop(people.dsn("worker")) as app:
        assert await (await app.get_job(job.id)).result(timeout=30) == 1
        await (await app.get_flow(first.id)).result(timeout=30)


async def test_the_role_counts_that_the_transaction_has(people: People, connection: asyncpg.Connection) -> None:
    """One who logs in with more, and takes on the dispatcher's role, for one transaction or back again."""
    app = shop("postgresql://nowhere")
    await connection.execute(f"set role {people.roles.dispatcher}")
    await app.job("charge").dispatch(tx=connection)
    await connection.execute("reset role")
    await app.job("charge").options(key="mine").dispatch(tx=connection)
    assert await connection.fetchval("select count(*) from flowrun.ready") == 2


async def test_it_is_found_out_again_when_roles_are_changed_under_an_open_app(
    people: People, connection: asyncpg.Connection
) -> None:
    login = people.login("dispatcher")
    more = "insert, select on all tables in schema flowrun"
    await connection.execute(f"grant {more} to {login}")
    async with shop(people.dsn("dispatcher")) as web:
        await web.job("charge").dispatch()
        await connection.execute(f"revoke {more} from {login}")
        await connection.execute(script("flowrun", people.roles))
        await web.job("charge").dispatch()
        await web.dispatch_many([web.job("charge").options(key="k")])
        with pytest.raises(DatabaseError, match="permission denied for"):
            await web.jobs.list()
    assert await connection.fetchval("select count(*) from flowrun.ready") == 3


async def test_it_replaces_what_it_dispatched_and_nothing_of_others(
    people: People, connection: asyncpg.Connection
) -> None:
    async with (
        shop(people.dsn("dispatcher")) as web,
        shop(people.dsn("other")) as other,
        shop(people.dsn("worker")) as app,
    ):
        for how in ({"key": "k", "on_conflict": "replace"}, {"debounce": ("d", 60.0)}):
            runs = [await web.job("charge").options(**how).dispatch() for _ in range(3)]
            assert not any(run.duplicate for run in runs)
            assert {row[0] for row in await connection.fetch("select id from flowrun.jobs")} == {runs[-1].id}
            for another in (other, web):
                if another is web:
                    await connection.execute("delete from flowrun.keys; delete from flowrun.jobs; delete from flowrun.ready; delete from flowrun.scheduled")  # fmt: skip # noqa: E501
                    runs = [await app.job("charge").options(**how).dispatch()]
                with pytest.raises(DatabaseError, match="another role dispatched, and it replaces its own"):
                    await another.job("charge").options(**how).dispatch()
                assert {row[0] for row in await connection.fetch("select id from flowrun.jobs")} == {runs[-1].id}
            await connection.execute("delete from flowrun.keys; delete from flowrun.jobs; delete from flowrun.ready; delete from flowrun.scheduled")  # fmt: skip # noqa: E501
        # Workers' roles replace whatever it is, and what they put there is not the dispatcher's.
        first = await web.job("charge").options(key="k").dispatch()
        second = await app.job("charge").options(key="k", on_conflict="replace").dispatch()
        assert (second.duplicate, second.id != first.id) == (False, True)
        with pytest.raises(DatabaseError, match="another role dispatched"):
            await web.job("charge").options(key="k", on_conflict="replace").dispatch()
        flow = web.flow("f", key="f", on_conflict="replace")
        flow.add(web.job("charge"))
        one, two = await flow.dispatch(), await flow.dispatch()
        assert not two.duplicate
        assert not await connection.fetchval("select count(*) from flowrun.flows where id = $1", one.id)


async def test_the_removal_is_the_statement_that_workers_send(connection: asyncpg.Connection) -> None:
    """A change of one is a change of the other: by a migration that replaces the function."""
    source = await connection.fetchval("select prosrc from pg_proc where proname = 'remove_unstarted'")
    assert source.strip().replace('"flowrun".', "flowrun.") == SQL["remove_unstarted"].replace('"flowrun".', "flowrun.")


# -- by hand ------------------------------------------------------------------------------------------------------------


class Victim:
    """What others have dispatched: a flow whose first node has ended, with a result that is nobody else's."""

    def __init__(self, flow: UUID, first: UUID, second: UUID, job: UUID) -> None:
        self.flow, self.first, self.second, self.job = map(str, (flow, first, second, job))


@pytest.fixture
async def victim(people: People, connection: asyncpg.Connection) -> Victim:
    async with shop(people.dsn("worker")) as app:
        flow = app.flow("theirs", key="theirs")
        first = flow.add(app.job("charge", {"card": "secret"}).options(queue="first"))
        second = flow.add(app.job("charge").options(queue="none"), after=first)
        flow.add(app.job("charge").options(queue="none"), after=second)
        run = await flow.dispatch()
        job = await app.job("charge", {"card": 7}).options(queue="none", key="their job").dispatch()
        async with app.worker(queues=["first"]):
            await run["charge"].result(timeout=30)
    return Victim(run.id, run["charge"].id, run["charge-2"].id, job.id)


def job(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "queue": "default", "type": "charge", "args": {}, "priority": 5, **more}


def flow(root: str, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    end = job(root, kind=1, type="flowrun.end", queue="flowrun", args={})
    nodes = tuple({"flow_id": root, "name": f"n{number}", **node} for number, node in enumerate(nodes))
    return {
        "root": root,
        "flows": [{"id": root, "name": "mine"}],
        "jobs": [*nodes, end],
        "edges": [],
        "blocked": [],
        **more,
    }


A, B, C, R = (str(mint.job_id()) for _ in range(4))

HOSTILE: dict[str, Any] = {
    "a deadline of theirs": lambda v: {"jobs": [job(A)], "deadlines": [{"id": v.job, "kind": 0, "delay": 0}]},
    "a deadline of their flow": lambda v: {"jobs": [], "deadlines": [{"id": v.flow, "kind": 1, "delay": 0}]},
    "a deadline that is over": lambda v: {"jobs": [job(A)], "deadlines": [{"id": A, "kind": 2, "delay": 0}]},
    "a deadline at no moment": lambda v: {"jobs": [job(A)], "deadlines": [{"id": A, "kind": 0}]},
    "a deadline of a job's for a flow": lambda v: {"jobs": [job(A)], "deadlines": [{"id": A, "kind": 1, "delay": 1}]},
    "an edge to their node": lambda v: flow(R, job(A), edges=[{"parent_id": A, "child_id": v.second, "condition": 0}]),
    "an edge from their node": lambda v: flow(R, job(A), edges=[{"parent_id": v.first, "child_id": A, "condition": 0}]),
    "an edge between theirs": lambda v: {"jobs": [], "edges": [{"parent_id": v.first, "child_id": v.second, "condition": 2}]},
    "an edge to nobody": lambda v: flow(R, job(A), edges=[{"parent_id": A, "condition": 0}]),
    "a counter of theirs": lambda v: flow(R, job(A), blocked=[{"id": v.second, "need": 1, "open": 1}]),
    "a rival of theirs": lambda v: flow(
        R, job(A), job(B), edges=[{"parent_id": A, "child_id": B, "condition": 5, "test": {"on": 0, "rivals": [v.job]}}]
    ),
    "their result as an argument": lambda v: {"jobs": [job(A, sources=[v.first], bindings=[[["card"], 0, []]])]},
    "their result in a flow": lambda v: flow(R, job(A, sources=[v.first], bindings=[[["card"], 0, []]])),
    "their job as a parent": lambda v: {"jobs": [job(A, parents=[v.first])]},
    "their job among the parents of an end": lambda v: {
        **flow(R, job(A)), "jobs": [job(A, flow_id=R), job(R, kind=1, type="flowrun.end", queue="flowrun", parents=[v.first])],
    },
    "a node of their flow": lambda v: {"jobs": [job(A, flow_id=v.flow, name="x")]},
    "a node of their flow beside one's own": lambda v: flow(R, job(A), job(B, flow_id=v.flow)),
    "their flow as one's own": lambda v: flow(v.flow, job(A), blocked=[{"id": A, "need": 1, "open": 1}]) | {
        "keys": [{"scope": "flow:mine", "key": "x", "id": v.flow, "on_conflict": "existing"}]
    },
    "their flow inside one's own": lambda v: {
        "root": R, "flows": [{"id": R, "name": "mine"}, {"id": v.flow, "name": "x"}],
        "jobs": [
            job(v.flow, kind=1, type="flowrun.end", queue="flowrun", flow_id=R), job(A, flow_id=v.flow),
            job(R, kind=1, type="flowrun.end", queue="flowrun"),
        ],
    },
    "their job as one's node": lambda v: flow(R, job(v.job)),
    "their job, undone": lambda v: flow(R, job(A, options={"compensates": v.first})),
    "their job as a verdict": lambda v: {
        **flow(R, job(A)),
        "jobs": [job(A, flow_id=R), job(R, kind=1, type="flowrun.end", queue="flowrun", options={"verdict": v.job})],
    },
    "their job, undone by an item": lambda v: flow(
        R, job(A, kind=5, type="flowrun.map", queue="flowrun", options={"item": {"type": "charge", "options": {"compensates": v.first}}})
    ),
    "their job, undone after a failure": lambda v: {
        "jobs": [job(A, options={"on_failure": {"type": "charge", "options": {"compensates": v.first}}})]
    },
    "one after the other's failure": lambda v: {
        "jobs": [job(A, options={"on_failure": {"type": "charge", "options": {"on_failure": {}}}})]
    },
    "flowrun's own job after a failure": lambda v: {
        "jobs": [job(A, options={"on_failure": {"type": "flowrun.end", "queue": "flowrun"}})]
    },
    "flowrun's own queue in a lane": lambda v: {"jobs": [job(A, queue="flowrun\x1f\x1f1\x1ftype:x")]},
    "flowrun's own type": lambda v: {"jobs": [job(A, type="flowrun.end")]},
    "an end of nothing": lambda v: {"jobs": [job(A, kind=1, type="flowrun.end", queue="flowrun")]},
    "a flow that is not there": lambda v: {"root": R, "jobs": [job(A)]},
    "flows without an outermost": lambda v: flow(R, job(A)) | {"root": None},
    "their flow as the outermost": lambda v: flow(R, job(A)) | {"root": v.flow},
    "a kind of another type": lambda v: flow(R, job(A, kind=3, type="flowrun.map", queue="flowrun")),
    "a kind that there is not": lambda v: flow(R, job(A, kind=9, type="flowrun.map", queue="flowrun")),
    "two kinds of end": lambda v: flow(R, job(A, kind=1, type="flowrun.end", queue="flowrun")),
    "a flow without an end": lambda v: {"root": R, "flows": [{"id": R, "name": "mine"}], "jobs": [job(A, flow_id=R)]},
    "flows in each other": lambda v: {
        "root": R, "flows": [{"id": one, "name": "mine"} for one in (R, A, B)],
        "jobs": [
            job(R, kind=1, type="flowrun.end", queue="flowrun"), job(A, kind=1, type="flowrun.end", queue="flowrun", flow_id=B),
            job(B, kind=1, type="flowrun.end", queue="flowrun", flow_id=A),
        ],
    },
    "jobs that wait for each other": lambda v: flow(
        R, job(A), job(B),
        edges=[{"parent_id": A, "child_id": B, "condition": 0}, {"parent_id": B, "child_id": A, "condition": 0}],
    ),
    "a job that is there twice": lambda v: {"jobs": [job(A), job(A, priority=1)]},
    "a tick of a schedule": lambda v: {"jobs": [job(A, options={"schedule": "nightly"})]},
    "what was not seen": lambda v: {"jobs": [job(A, options={"unseen": [v.first]})]},
    "survival": lambda v: {"jobs": [job(A, options={"survived": 1})]},
    "losses": lambda v: {"jobs": [job(A, options={"lost": -9})]},
    "attempts": lambda v: {"jobs": [job(A, options={"before": -9})]},
    "a failure of theirs": lambda v: {"jobs": [job(A, options={"failure": {"job_id": v.job}})]},
    "another role": lambda v: {"jobs": [job(A, options={"role": "flowrun"})]},
    "options that are none": lambda v: {"jobs": [job(A, options=["role"])]},
    "a moment that never comes": lambda v: {"jobs": [job(A, run_at="infinity")]},
    "a moment too far": lambda v: {"jobs": [job(A, run_at="287000-01-01")]},
    "a delay without an end": lambda v: {"jobs": [job(A, delay="Infinity")]},
    "a key for theirs": lambda v: {
        "jobs": [job(A)], "keys": [{"scope": "job:charge", "key": "x", "id": v.job, "on_conflict": "existing"}]
    },
    "a key of another type": lambda v: {
        "jobs": [job(A)], "keys": [{"scope": "job:refund", "key": "x", "id": A, "on_conflict": "existing"}]
    },
    "a key of a flow's for a job": lambda v: {
        "jobs": [job(A)], "keys": [{"scope": "flow:theirs", "key": "theirs", "id": A, "on_conflict": "existing"}]
    },
    "the place of their job": lambda v: {
        "jobs": [job(A)], "keys": [{"scope": "job:charge", "key": "their job", "id": A, "on_conflict": "replace"}]
    },
    "the key of their job": lambda v: {
        "jobs": [job(A)], "keys": [{"scope": "job:charge", "key": "their job", "id": A, "on_conflict": "debounce"}]
    },
    "the place of their flow": lambda v: {
        **flow(R, job(A)), "flows": [{"id": R, "name": "theirs"}],
        "keys": [{"scope": "flow:theirs", "key": "theirs", "id": R, "on_conflict": "replace"}],
    },
}  # fmt: skip

HARMLESS = {"their flow as one's own"}
"""Taken for what is sent again: nothing is done."""


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_written_by_hand_reaches_nothing_of_others(
    people: People, connection: asyncpg.Connection, victim: Victim, name: str
) -> None:
    before = await rows(connection)
    mine = await people.connect("dispatcher")
    plan = json.dumps(HOSTILE[name](victim))
    refused = (DENIED, asyncpg.DataError, asyncpg.CheckViolationError, asyncpg.UniqueViolationError)
    try:
        found = await mine.fetch("select * from flowrun.dispatch($1)", plan)
        assert name in HARMLESS
        assert found == []
    except refused:
        assert name not in HARMLESS
    finally:
        await mine.close()
    assert await rows(connection) == before


async def test_what_is_stored_already_gets_no_key_and_no_deadline(
    people: People, connection: asyncpg.Connection, victim: Victim
) -> None:
    before = await rows(connection)
    mine = await people.connect("dispatcher")
    plan = {
        "jobs": [job(victim.job)],
        "deadlines": [{"id": victim.job, "kind": 0, "delay": 0}],
        "keys": [{"scope": "job:charge", "key": "mine", "id": victim.job, "on_conflict": "existing"}],
    }
    for on_conflict in ("existing", "replace"):
        plan["keys"][0]["on_conflict"] = on_conflict
        assert await mine.fetch("select * from flowrun.dispatch($1)", json.dumps(plan)) == []
        assert await rows(connection) == before
    await mine.close()


async def test_nodes_are_told_to_who_knows_the_key(people: People, victim: Victim) -> None:
    mine = await people.connect("dispatcher")
    ask = "select count(*) from flowrun.nodes_of($1, $2, $3)"
    assert await mine.fetchval(ask, "flow:theirs", "theirs", victim.flow) == 3
    assert await mine.fetchval(ask, "flow:theirs", "guess", victim.flow) == 0
    assert await mine.fetchval(ask, "job:charge", "their job", victim.flow) == 0
    await mine.close()


HIJACK = """
create temp table jobs (like flowrun_mine.jobs);
create function pg_temp.coalesce_() returns integer language sql as 'select 1';
create function {mine}.mine(uuid, uuid) returns boolean language plpgsql as $$ begin raise exception 'hijacked'; end $$;
create operator {mine}.= (leftarg = uuid, rightarg = uuid, function = {mine}.mine);
create function {mine}.now() returns timestamptz language plpgsql as $$ begin raise exception 'hijacked'; end $$;
create function {mine}.json_to_recordset(json) returns setof record language plpgsql as $$ begin raise exception 'hijacked'; end $$;
"""


async def test_no_search_path_hijacks_a_function(people: People, connection: asyncpg.Connection) -> None:
    """Operators, functions, temporary tables and a schema of the caller's own, before everything else in its path."""
    login = people.login("dispatcher")
    await connection.execute(
        f"create schema mine authorization {login}; create schema flowrun_mine authorization {login}"
    )
    mine = await people.connect("dispatcher")
    await mine.execute("create table flowrun_mine.jobs (id uuid)")
    await mine.execute(HIJACK.format(mine="mine"))
    await mine.execute("set search_path = mine, pg_temp, pg_catalog")
    with pytest.raises(asyncpg.RaiseError, match="hijacked"):
        await mine.execute("select now()")
    for name in ("ready", "flows", "keys", "pg_proc"):
        await mine.execute(f"create temp table {name} (id uuid)")
    plan = {"jobs": [job(A)], "keys": [{"scope": "job:charge", "key": "x", "id": A, "on_conflict": "existing"}]}
    await mine.fetch("select * from flowrun.dispatch($1::pg_catalog.text::pg_catalog.json)", json.dumps(plan))
    await mine.close()
    assert await connection.fetchval("select count(*) from flowrun.ready") == 1
    await connection.execute("drop schema mine cascade; drop schema flowrun_mine cascade")
