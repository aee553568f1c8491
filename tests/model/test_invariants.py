"""Each invariant can be broken, and is seen to be: a check that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from flowrun import Flowrun, any_of, backoff
from flowrun.testing import databases
from tests.model import invariants


async def play(dsn: str) -> None:
    """A little of everything, run to its end, and one flow that waits for a handler that is not there."""
    app = Flowrun(dsn)

    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def act(fail: bool = False, first: bool = False) -> str:
        if fail or (first and not seen):
            seen.append(True)
            raise ValueError("as written")
        return "done"

    seen: list[bool] = []
    flow = app.flow("played")
    a = flow.add(act.job(), name="a")
    flow.add(act.job(first=True), name="flaky", after=a)
    bad = flow.add(act.job(fail=True), name="bad", after=a)
    skipped = flow.add(act.job(), name="skipped", after=bad)
    flow.add(act.job(), name="far", after=skipped)
    flow.add(act.job(), name="any", after=any_of(a, bad))
    inner = app.flow("inner")
    inner.add(act.job(), name="x")
    flow.add(inner, after=a, name="inner")
    flow.on_finish(act.job(), name="callback")
    open_flow = app.flow("open")
    first = open_flow.add(app.job("nobody's"), name="first")
    second = open_flow.add(app.job("nobody's"), name="second")
    open_flow.add(app.job("nobody's"), name="waits", after=[first, second])
    open_flow.add(app.job("nobody's", delay=3600.0), name="later")
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=20)
        await run["callback"].wait(timeout=20)
        await open_flow.dispatch()


@pytest.fixture(scope="module")
def played(flowrun_postgres_server: tuple[str, str]) -> object:
    server, template = flowrun_postgres_server
    dsn = asyncio.run(databases.create(server, template))
    asyncio.run(play(dsn))
    yield dsn
    asyncio.run(databases.drop(server, dsn))


@pytest.fixture
async def connection(played: str) -> AsyncIterator[asyncpg.Connection]:
    """In a transaction that is rolled back."""
    connection = await asyncpg.connect(played)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        """
        set local search_path to flowrun, pg_catalog;
        create function pg_temp.job(text) returns uuid language sql as 'select id from flowrun.jobs where name = $1';
        insert into flowrun.workers (id, name, queues, concurrency, expires_at)
        values ('00000000-0000-0000-0000-00000000000a', 'w', '{default}', 1, now() + interval '1 hour')
        """
    )
    yield connection
    await transaction.rollback()
    await connection.close()


FINISH_WAITS = """
delete from blocked where id = pg_temp.job('waits');
insert into finished (id, outcome, attempt, started_at) values (pg_temp.job('waits'), 1, 1, now() - interval '1 hour');
"""
WORKER = "'00000000-0000-0000-0000-00000000000a'"

BREAK = {
    "standing": [
        "delete from blocked where id = pg_temp.job('waits')",
        "insert into blocked (id, need, open) values (pg_temp.job('a'), 1, 1)",
        "insert into ready (queue, priority, id, type) select queue, priority, id, type from jobs where name = 'later'",
        f"insert into leases values ({WORKER}, 1, now(), array[pg_temp.job('first')], '{{1}}')",
    ],
    "strangers": [
        "delete from jobs where name = 'waits'",
        "insert into scheduled (id, run_at) values (gen_random_uuid(), now())",
        "insert into attempts (job_id, attempt, error_type, message) values (gen_random_uuid(), 1, 'x', 'x')",
        f"insert into leases values ({WORKER}, 1, now(), array[gen_random_uuid()], '{{1}}')",
    ],
    "I1 ordering": [
        "update finished set started_at = started_at - interval '1 hour' where id = pg_temp.job('flaky')",
        "update finished set finished_at = now() + interval '1 hour' where id = pg_temp.job('a')",
        FINISH_WAITS,
    ],
    "I1 skips": [
        "update finished set started_at = now() where id = pg_temp.job('skipped')",
        "update finished set attempt = 1 where id = pg_temp.job('far')",
        "update finished set cause = null where id = pg_temp.job('far')",
        "update finished set cause = pg_temp.job('a') where id = pg_temp.job('far')",
        "update finished set outcome = 1, attempt = 1, started_at = now() where id = pg_temp.job('bad')",
    ],
    "I2 lost join": [
        """
        delete from ready where id in (pg_temp.job('first'), pg_temp.job('second'));
        insert into finished (id, outcome, attempt, started_at)
        values (pg_temp.job('first'), 1, 1, now()), (pg_temp.job('second'), 1, 1, now())
        """,
        "insert into blocked (id, need, open) values (pg_temp.job('any'), 1, 1)",
    ],
    "I3 false release": [
        FINISH_WAITS,
        """
        delete from blocked where id = pg_temp.job('waits');
        insert into ready (queue, priority, id, type) select queue, priority, id, type from jobs where name = 'waits'
        """,
        f"""
        delete from blocked where id = pg_temp.job('waits');
        insert into leases values ({WORKER}, 1, now(), array[pg_temp.job('waits')], '{{1}}')
        """,
        "update finished set outcome = 1, attempt = 1, started_at = now() where id = pg_temp.job('far')",
    ],
    "I3 false start": ["delete from edges where child_id = pg_temp.job('waits')"],
    "I6 counters": [
        "update blocked set need = 1, open = 1 where id = pg_temp.job('waits')",
        "update blocked set open = 3 where id = pg_temp.job('waits')",
        "update blocked set need = 3, open = 3 where id = pg_temp.job('waits')",
        """
        delete from ready where id = pg_temp.job('first');
        insert into finished (id, outcome, attempt, started_at) values (pg_temp.job('first'), 1, 1, now())
        """,
    ],
    "I7 one lease": [
        f"""
        delete from ready where id = pg_temp.job('first');
        insert into leases values ({WORKER}, 1, now(), array[pg_temp.job('first')], '{{1}}');
        insert into leases values ({WORKER}, 2, now(), array[pg_temp.job('first')], '{{2}}')
        """
    ],
    "I8 settled once": [
        "update finished set attempt = 0 where id = pg_temp.job('a')",
        "update finished set started_at = null where id = pg_temp.job('a')",
        "update finished set finished_at = started_at - interval '1 second' where id = pg_temp.job('a')",
        "update jobs set options = '{\"attempts\": 1}' where name = 'flaky'",
    ],
    "I8 attempts": [
        "delete from attempts where job_id = pg_temp.job('bad') and attempt = 2",
        "update attempts set attempt = 2 where job_id = pg_temp.job('flaky')",
        "update attempts set attempt = 3 where job_id = pg_temp.job('flaky')",
    ],
    "I12 orphans": ["insert into leases values (gen_random_uuid(), 1, now(), array[pg_temp.job('first')], '{1}')"],
    "I16 spoils": [
        "update finished set spoils = null where id = pg_temp.job('bad')",
        "update finished set spoils = (select id from flows where name = 'played') where id = pg_temp.job('a')",
    ],
    "I16 flow state": [
        "update finished set outcome = 1 where id = (select id from flows where name = 'played')",
        "update finished set outcome = 2, spoils = pg_temp.job('inner') where id = pg_temp.job('inner/x')",
        "update finished set outcome = 3 where id = pg_temp.job('inner')",
    ],
    "I17 closed": [
        "insert into finished (id, outcome, attempt, started_at) values ((select id from flows where name = 'open'), 1, 1, now())",
        "delete from finished where id = pg_temp.job('any')",
    ],
    "ready rows": [
        "update jobs set priority = 1 where name = 'first'",
        "update jobs set queue = 'other' where name = 'first'",
        "update jobs set type = 'other' where name = 'first'",
    ],
    "at rest": ["select 1"],
}


async def reported(connection: asyncpg.Connection, *, at_rest: bool) -> set[str]:
    try:
        await invariants.check(connection, at_rest=at_rest)
    except AssertionError as error:
        names = sorted(BREAK, key=len, reverse=True)
        return {next((name for name in names if line.startswith(name)), line) for line in str(error).splitlines()}
    return set()


async def test_nothing_is_broken_at_first(connection: asyncpg.Connection) -> None:
    assert await reported(connection, at_rest=False) == set()


@pytest.mark.parametrize(
    ("name", "sql"),
    [pytest.param(name, sql, id=f"{name}-{n}") for name, ways in BREAK.items() for n, sql in enumerate(ways)],
)
async def test_what_is_broken_is_reported(connection: asyncpg.Connection, name: str, sql: str) -> None:
    await connection.execute(sql)
    assert name in await reported(connection, at_rest=name == "at rest")


def test_every_check_is_tried() -> None:
    assert {check.name for check in invariants.CHECKS} | {"I16 spoils", "I16 flow state"} == BREAK.keys()


async def test_the_rows_are_listed(connection: asyncpg.Connection) -> None:
    await connection.execute("delete from blocked where id = pg_temp.job('waits')")
    waits = await connection.fetchval("select pg_temp.job('waits')")
    with pytest.raises(AssertionError, match=rf"standing .*UUID\('{waits}'\)"):
        await invariants.check(connection, at_rest=False)
