"""Taking ticks, statement by statement: plans, locks, and what a look costs where there is nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import pytest

from flowrun import codec
from flowrun.core.plan import JobRow, Plan
from flowrun.core.recurrence import Recurrence
from flowrun.core.template import placeholder, to_template
from flowrun.store import schedules, ticks
from flowrun.store.schedules import Wanted
from flowrun.store.statement import Statements
from tests.store.plans import MODES, explainer
from tests.store.stage import Worker, connections
from tests.store.test_plans import FILL as JOBS

FRESH = True
pytestmark = pytest.mark.timeout(120)

FILL = """
insert into flowrun.schedules (key, every_us, kind, name, template, next_at, waits_for, paused)
select 'other-' || i, 1000000, 0, 'step', '{}', now() + make_interval(days => 1 + i), null, i % 10 = 0
from generate_series(1, 20000) i
"""
TABLES = {"schedules", "jobs", "finished"}


def wanted(key: str, **more: object) -> Wanted:
    row = JobRow(placeholder(), None, 0, None, "default", "step", "{}", None, None, 5, False, None, None, None)
    template = to_template(Plan(jobs=[row], free=[row]), codec.load, key)
    return Wanted(key, Recurrence(every=1_000_000), "allow", "all", 0, "step", template)._replace(**more)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def rewind(connection: asyncpg.Connection, seconds: float, key: str = "%") -> None:
    await connection.execute(
        "update flowrun.schedules set next_at = date_trunc('second', now()) - $1::interval where key like $2",
        timedelta(seconds=seconds), key,
    )  # fmt: skip


async def test_looks_read_no_more_than_what_is_due(
    dsn: str, connection: asyncpg.Connection, sql: Statements, stack: AsyncExitStack
) -> None:
    stale = {mode: await stack.enter_async_context(explainer(dsn, mode, sql)) for mode in MODES}
    worker = await Worker(connection, sql).register()
    statements = {
        "due_schedules": [None, 50, []], "next_tick": [None, []], "news": [worker.id],
        "open_runs": [[worker.id] * 10],
    }  # fmt: skip
    for explained in stale.values():
        for name, arguments in statements.items():
            await explained.explain(name, arguments)  # a generic plan is kept from here on
    await connection.execute(FILL)
    for table in ("jobs", "finished"):
        await connection.execute(JOBS[table], 20_000)
    for number in range(5):
        await schedules.put(connection, sql, wanted(f"due-{number}"))
    await rewind(connection, 5, "due-%")
    held = await connection.fetchval("select id from flowrun.jobs limit 1")
    await connection.execute("update flowrun.schedules set waits_for = $1 where key in ('other-11', 'other-12')", held)
    for state in ("prepared on empty tables", "never analyzed", "analyzed"):
        if state == "analyzed":
            await connection.execute("analyze")
        for mode in MODES:
            async with AsyncExitStack() as fresh:
                explained = stale[mode]
                if state != "prepared on empty tables":
                    explained = await fresh.enter_async_context(explainer(dsn, mode, sql))
                for name, arguments in statements.items():
                    plan = await explained.explain(name, arguments)
                    where = f"{name}, {mode}, {state}: {plan.worst()}"
                    if state == "prepared on empty tables":
                        # The schedules themselves may be read: they are few, and analysed soon after they came.
                        assert not plan.scanned() & {"jobs", "finished"}, where
                        continue
                    assert plan.effort() <= 30, where
                    assert not plan.scanned() & TABLES, where


async def test_what_another_has_locked_is_left_to_it(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    await schedules.put(connection, sql, wanted("a"))
    await schedules.put(connection, sql, wanted("b"))
    await rewind(connection, 2)
    moment = await connection.fetchval("select now()")
    async with connections(dsn, 1) as (other,):
        async with other.transaction():
            await other.fetch("select from flowrun.schedules where key = 'a' for update")
            ticked = await ticks.take(connection, sql, now=moment)
            assert ticked.schedules == 1
            assert ticked.next_in is not None
            assert ticked.next_in <= 0
        assert (await ticks.take(connection, sql, now=moment)).schedules == 1
    counts = await connection.fetchrow(
        "select (select sum(dispatched) from flowrun.schedules), (select count(*) from flowrun.ready),"
        " count(distinct (options ->> 'schedule', options ->> 'scheduled_for')), count(*) from flowrun.jobs"
    )
    assert len(set(counts)) == 1
    assert counts[0] >= 6  # a second may have begun since they were rewound


async def test_an_error_in_the_middle_leaves_nothing(
    connection: asyncpg.Connection, sql: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schedules.put(connection, sql, wanted("a"))
    await rewind(connection, 2)
    before = await connection.fetch("select * from flowrun.schedules")
    with monkeypatch.context() as patched:
        patched.setattr("flowrun.crash.point", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await ticks.take(connection, sql)
        with pytest.raises(ticks.TickFailed, match="'a'"):
            await ticks.take(connection, sql, limit=1)
    assert await connection.fetch("select * from flowrun.schedules") == before
    for table in ("jobs", "ready", "keys"):
        assert await connection.fetchval(f"select count(*) from flowrun.{table}") == 0
    assert (await ticks.take(connection, sql)).schedules == 1


async def test_a_thousand_schedules_of_one_moment(connection: asyncpg.Connection, sql: Statements) -> None:
    await connection.execute(
        "insert into flowrun.schedules (key, every_us, catchup, kind, name, template, next_at)"
        " select 'key-' || i, 60000000, 'all', 0, 'step', $1::text::jsonb, date_trunc('minute', now())"
        " from generate_series(1, 1000) i",
        codec.dump(wanted("x").template),
    )
    looks = 0
    while (ticked := await ticks.take(connection, sql)).next_in is not None and ticked.next_in <= 0:
        looks += 1
    assert looks == 1000 // ticks.BATCH - 1
    assert await connection.fetchval("select count(distinct options ->> 'schedule') from flowrun.jobs") == 1000
