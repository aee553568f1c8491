"""Writing jobs and flows: complete or not at all, and harmless when sent again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from flowrun import mint
from flowrun.core.plan import FlowRow, JobRow, Plan
from flowrun.store import insert, listen, migrate, upkeep
from flowrun.store.statement import Statements
from tests.store.stage import Worker, connections, job_row, places, plan_of, put, until_waiting

LATER = datetime.now(UTC) + timedelta(hours=1)
EARLIER = datetime.now(UTC) - timedelta(hours=1)


async def counts(connection: Any, *tables: str) -> dict[str, int]:
    return {table: await connection.fetchval(f"select count(*) from flowrun.{table}") for table in tables}


def chain(length: int) -> Plan:
    ids = list(mint.flow_ids(length)[1])
    return plan_of([job_row(id) for id in ids], [(a, b, 0) for a, b in zip(ids, ids[1:], strict=False)])


async def test_jobs_are_ready_or_scheduled(connection: asyncpg.Connection, sql: Statements) -> None:
    now, later, past, delayed = await put(
        connection, sql, job_row(), job_row(run_at=LATER), job_row(run_at=EARLIER), job_row(delay=60.0)
    )
    assert await places(connection, now) == ["ready"]
    for id in (later, past, delayed):
        assert await places(connection, id) == ["scheduled"]
    at = dict(await connection.fetch("select id, run_at from flowrun.scheduled"))
    assert at[later] == LATER
    assert at[past] == EARLIER
    seconds = await connection.fetchval("select extract(epoch from $1::timestamptz - now())::float8", at[delayed])
    assert 50 < seconds <= 60


async def test_the_later_of_delay_and_run_at_counts(connection: asyncpg.Connection, sql: Statements) -> None:
    (id,) = await put(connection, sql, job_row(run_at=LATER, delay=60.0))
    assert await connection.fetchval("select run_at from flowrun.scheduled where id = $1", id) == LATER


async def test_jobs_sent_twice_are_written_once(connection: asyncpg.Connection, sql: Statements) -> None:
    rows = [job_row(), job_row(delay=5.0)]
    await put(connection, sql, *rows)
    await put(connection, sql, *rows, job_row())
    assert await counts(connection, "jobs", "ready", "scheduled") == {"jobs": 3, "ready": 2, "scheduled": 1}


async def test_jobs_can_be_stored_in_a_lease_at_once(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register()
    rows = [job_row(args='{"n": 1.50}'), job_row(), job_row(delay=5.0)]

    async def send(changes: int, lease: int) -> list[Any]:
        return await insert.insert_taken(
            connection, sql, rows, worker_id=worker.id, lease=lease, take=[rows[0].id], changes=changes
        )

    (job,) = await send(0, 1)
    assert (job.id, job.lease, job.attempt, job.args, job.queue) == (rows[0].id, 1, 1, '{"n": 1.50}', rows[0].queue)
    assert [await places(connection, row.id) for row in rows] == [["leases"], ["ready"], ["scheduled"]]
    assert await send(0, 2) == []  # sent again: nothing
    assert await counts(connection, "jobs", "leases") == {"jobs": 3, "leases": 1}
    rows = [job_row()]
    assert await send(7, 3) == []  # a queue was changed, and the worker does not know
    await upkeep.leave(connection, sql, worker_id=worker.id)
    rows.append(job_row())
    assert await send(0, 4) == []  # it is gone
    assert await counts(connection, "leases") == {"leases": 0}
    assert [await places(connection, row.id) for row in rows] == [["ready"], ["ready"]]


@pytest.mark.parametrize("together", [False, True])
async def test_one_job_is_written_as_many_are(connection: asyncpg.Connection, sql: Statements, together: bool) -> None:
    """It has statements of its own: what they store, bring and tell is the same."""
    worker = await Worker(connection, sql).register()
    heard: list[tuple[str, str]] = []
    await listen.listen(connection, ["c"], lambda channel, payload: heard.append((channel, payload)))
    options = {
        "queue": "q",
        "type": "t",
        "args": '{"n": 1.50}',
        "priority": 3,
        "optional": True,
        "options": '{"tags": ["x"]}',
    }
    rest = [job_row(delay=60.0)] if together else []

    async def stored(id: UUID) -> dict[str, Any]:
        row = await connection.fetchrow("select * from flowrun.jobs where id = $1", id)
        return {name: value for name, value in row.items() if name not in ("id", "created_at")}

    first, second, third = (job_row(**options) for _ in range(3))
    for _ in range(2):  # the second time it changes nothing
        await insert.insert_jobs(connection, sql, [first, *rest], [("c", "p")])
    await insert.insert_jobs(connection, sql, [second])
    assert heard == [("c", "p")] * 2
    ready = await connection.fetch("select id, queue, priority, type, attempt from flowrun.ready order by id")
    assert ready == [(id, "q", 3, "t", 0) for id in (first.id, second.id)]

    async def take(row: JobRow, lease: int, changes: int) -> list[Any]:
        return await insert.insert_taken(
            connection, sql, [row, *rest], worker_id=worker.id, lease=lease, take=[row.id], changes=changes
        )

    (job,) = await take(third, 1, 0)
    taken = (
        job.id,
        job.lease,
        job.attempt,
        job.flow_id,
        job.kind,
        job.name,
        job.queue,
        job.type,
        job.args,
        job.priority,
    )
    assert taken == (third.id, 1, 1, None, 0, None, "q", "t", '{"n": 1.50}', 3)
    assert (job.sources, job.bindings, job.options) == (None, None, '{"tags": ["x"]}')
    assert await connection.fetch("select n, jobs, attempts from flowrun.leases") == [(1, [third.id], [1])]
    assert await take(third, 2, 0) == []  # sent again
    assert await stored(first.id) == await stored(second.id) == await stored(third.id)
    for changes, gone in ((7, False), (0, True)):  # a queue was changed, and the worker does not know; it is gone
        if gone:
            await upkeep.leave(connection, sql, worker_id=worker.id)
        row = job_row(**options)
        assert await take(row, 3, changes) == []
        assert await places(connection, row.id) == ["ready"]


async def test_a_job_that_has_run_is_not_written_again(connection: asyncpg.Connection, sql: Statements) -> None:
    row = job_row()
    await put(connection, sql, row)
    worker = await Worker(connection, sql).register()
    await worker.settle(await worker.claim())
    await put(connection, sql, row)
    assert await places(connection, row.id) == ["finished"]


@pytest.mark.parametrize("length", [3, insert.COPY_FROM + 1])
async def test_a_flow_is_whole_and_written_once(connection: asyncpg.Connection, sql: Statements, length: int) -> None:
    plan = chain(length)
    expected = {"flows": 1, "jobs": length, "edges": length - 1, "blocked": length - 1, "ready": 1}
    for _ in range(2):
        await insert.insert_flow(connection, sql, plan)
        assert await counts(connection, *expected) == expected


@pytest.mark.parametrize("length", [3, insert.COPY_FROM + 1])
async def test_a_repeat_waits_for_the_first(dsn: str, sql: Statements, length: int) -> None:
    """The first's commit is under way when the client, having lost the answer, sends it again."""
    plan = chain(length)
    async with connections(dsn, 3) as (first, second, watch):
        transaction = first.transaction()
        await transaction.start()
        await insert.insert_flow(first, sql, plan)
        repeat = asyncio.create_task(insert.insert_flow(second, sql, plan))
        await until_waiting(watch, second)
        await transaction.commit()
        await repeat
        assert await counts(watch, "jobs", "ready") == {"jobs": length, "ready": 1}


@pytest.mark.parametrize("length", [3, insert.COPY_FROM + 1])
async def test_a_repeat_of_what_was_rolled_back_is_written(dsn: str, sql: Statements, length: int) -> None:
    plan = chain(length)
    async with connections(dsn, 3) as (first, second, watch):
        transaction = first.transaction()
        await transaction.start()
        await insert.insert_flow(first, sql, plan)
        repeat = asyncio.create_task(insert.insert_flow(second, sql, plan))
        await until_waiting(watch, second)
        await transaction.rollback()
        await repeat
        assert await counts(watch, "jobs", "ready") == {"jobs": length, "ready": 1}


@pytest.mark.parametrize("filler", [0, insert.COPY_FROM])
async def test_what_waits_for_nothing_may_still_wait_for_a_moment(
    connection: asyncpg.Connection, sql: Statements, filler: int
) -> None:
    rows = [job_row(), job_row(delay=9.0), job_row(run_at=LATER), job_row(queue="other", priority=0)]
    others = [job_row(run_at=LATER) for _ in range(filler)]
    await insert.insert_flow(connection, sql, plan_of([*rows, *others], []))
    assert [await places(connection, row.id) for row in rows] == [["ready"], ["scheduled"], ["scheduled"], ["ready"]]
    found = await connection.fetchrow("select * from flowrun.ready where queue = 'other'")
    assert (found["priority"], found["attempt"], found["type"]) == (0, 0, "step")


@pytest.mark.parametrize("filler", [0, insert.COPY_FROM])
async def test_names_tags_and_sources_arrive_as_they_were(
    connection: asyncpg.Connection, sql: Statements, filler: int
) -> None:
    flow, first, second, third = mint.job_id(), *mint.flow_ids(3)[1]
    tags = ['a"b', "c\\d", "e,{}f", "", "null", "ü"]
    rows = [
        job_row(first, flow_id=flow),
        job_row(second, flow_id=flow)._replace(sources=[first], bindings="[]", parents=[], name='n"1'),
        job_row(third, flow_id=flow)._replace(
            sources=[first, second], bindings="[]", parents=[second], args='{"a": [1, "\\u00fc"]}'
        ),
        *(job_row() for _ in range(filler)),
    ]
    plan = plan_of(rows, [(first, second, 0), (first, third, 0), (second, third, 2)])
    plan.flows[:] = [FlowRow(flow, flow, 'na"me\\', tags), FlowRow(mint.job_id(), flow, "inner", [])]
    await insert.insert_flow(connection, sql, plan)
    stored = await connection.fetchrow("select name, tags from flowrun.flows where id = $1", flow)
    assert tuple(stored) == ('na"me\\', tags)
    found = {row["id"]: row for row in await connection.fetch("select * from flowrun.jobs where flow_id is not null")}
    assert (found[first]["sources"], found[second]["sources"]) == (None, [first])
    assert found[third]["sources"] == [first, second]
    assert [found[id]["parents"] for id in (first, second, third)] == [None, [], [second]]
    assert found[second]["name"] == 'n"1'
    assert found[third]["args"] == '{"a": [1, "ü"]}'
    assert await connection.fetch("select need, open from flowrun.blocked order by id") == [(1, 1), (2, 2)]


async def test_a_broken_flow_leaves_nothing(connection: asyncpg.Connection, sql: Statements) -> None:
    for length in (3, insert.COPY_FROM + 1):
        plan = chain(length)
        plan.jobs[-1] = plan.jobs[-1]._replace(priority=99)
        with pytest.raises(asyncpg.CheckViolationError):
            await insert.insert_flow(connection, sql, plan)
        assert await counts(connection, "flows", "jobs", "edges", "blocked", "ready") == {
            "flows": 0, "jobs": 0, "edges": 0, "blocked": 0, "ready": 0,
        }  # fmt: skip


async def test_in_the_callers_transaction_it_goes_with_it(connection: asyncpg.Connection, sql: Statements) -> None:
    for length in (3, insert.COPY_FROM + 1):
        transaction = connection.transaction()
        await transaction.start()
        await insert.insert_flow(connection, sql, chain(length))
        await put(connection, sql, job_row())
        await transaction.rollback()
    assert await counts(connection, "flows", "jobs") == {"flows": 0, "jobs": 0}


async def test_all_goes_into_the_schema_that_is_configured(connection: asyncpg.Connection) -> None:
    odd = Statements('We"ird. Schema')
    await migrate.migrate(connection, odd.schema)
    try:
        for length in (3, insert.COPY_FROM + 1):
            await insert.insert_flow(connection, odd, chain(length))
        assert await counts(connection, "jobs") == {"jobs": 0}
        assert await connection.fetchval('select count(*) from "We""ird. Schema".jobs') == insert.COPY_FROM + 4
    finally:
        await connection.execute('drop schema "We""ird. Schema" cascade')
