"""Claiming: what is taken, in which order, and that nothing is taken twice."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from flowrun.store import claim, upkeep
from flowrun.store.claim import Marks
from flowrun.store.statement import Statements
from tests.store.stage import Worker, again, connections, job_row, places, put


async def test_by_priority_then_age(connection: asyncpg.Connection, sql: Statements) -> None:
    rows = [job_row(priority=priority) for priority in (5, 9, 0, 5, 0)]
    await put(connection, sql, *reversed(rows))
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim(3) + await worker.claim(3)
    assert [job.id for job in jobs] == [rows[at].id for at in (2, 4, 0, 3, 1)]
    assert [job.lease for job in jobs] == [1, 1, 1, 2, 2]
    assert {job.attempt for job in jobs} == {1}


async def test_the_definition_comes_along(connection: asyncpg.Connection, sql: Statements) -> None:
    row = job_row(options='{"timeout": 5}', args='{"a": 1}', priority=3)._replace(name="n")
    await put(connection, sql, row)
    worker = await Worker(connection, sql).register()
    (job,) = await worker.claim()
    assert (job.id, job.type, job.queue, job.priority, job.kind) == (row.id, "step", "default", 3, 0)
    assert (job.args, job.options, job.sources, job.bindings) == ('{"a": 1}', '{"timeout": 5}', None, None)


async def test_nothing_to_claim_makes_no_lease(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register()
    assert await worker.claim() == []
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_only_types_it_can_run(connection: asyncpg.Connection, sql: Statements) -> None:
    old, new = await put(connection, sql, job_row(type="new"), job_row())
    worker = await Worker(connection, sql, types=["step", "other"]).register()
    assert [job.id for job in await worker.claim()] == [new]
    assert await places(connection, old) == ["ready"]


async def test_queues_take_turns(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, *[job_row(queue=queue) for queue in "aabbcc"], job_row(queue="d"))
    worker = await Worker(connection, sql, queues=["a", "b", "c"]).register()
    first = []
    for turn in range(3):
        worker._turn = turn
        first.append([job.queue for job in await worker.claim(1)])
    assert first == [["a"], ["b"], ["c"]]
    assert sorted(job.queue for job in await worker.claim()) == ["a", "b", "c"]
    assert await connection.fetchval("select count(*) from flowrun.ready") == 1


async def test_the_limit_holds_over_all_queues(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, *[job_row(queue=queue) for queue in "aaabbb"])
    worker = await Worker(connection, sql, queues=["a", "b"]).register()
    assert [job.queue for job in await worker.claim(4)] == ["a", "a", "a", "b"]
    assert await connection.fetchval("select count(*) from flowrun.ready") == 2


async def test_from_the_mark_it_sees_only_what_comes_behind(connection: asyncpg.Connection, sql: Statements) -> None:
    rows = [job_row(priority=5) for _ in range(4)]
    await put(connection, sql, rows[1])
    worker = await Worker(connection, sql).register()
    assert [job.id for job in await worker.claim()] == [rows[1].id]
    urgent = job_row(priority=1)
    await put(connection, sql, rows[0], urgent, rows[2])
    assert [job.id for job in await worker.claim(from_head=False)] == [rows[2].id]
    assert await worker.claim(from_head=False) == []
    assert [job.id for job in await worker.claim()] == [urgent.id, rows[0].id]


async def test_marks_are_kept_by_queue() -> None:
    marks = Marks(["a", "b"])
    queues, priorities, ids = marks.columns(1)
    assert (queues, priorities) == (["b", "a"], [-1, -1])
    assert {id.int for id in ids} == {0}
    assert Marks([]).columns(3) == ([], [], [])


async def test_two_claims_never_meet(dsn: str, sql: Statements) -> None:
    async with connections(dsn, 3) as (one, two, watch):
        ids = await put(watch, sql, *[job_row() for _ in range(6)])
        first, second = await Worker(one, sql).register(), await Worker(two, sql).register()
        transaction = one.transaction()
        await transaction.start()
        taken = await first.claim(4)
        others = await second.claim(4)  # does not wait
        await transaction.rollback()
        assert [job.id for job in taken] == ids[:4]
        assert [job.id for job in others] == ids[4:]
        assert [job.id for job in await second.claim(9)] == ids[:4]


async def test_many_claim_side_by_side(dsn: str, sql: Statements) -> None:
    async with connections(dsn, 8) as opened:
        ids = await put(opened[0], sql, *[job_row(priority=at % 3) for at in range(2000)])

        async def take(connection: asyncpg.Connection) -> list[object]:
            worker = await Worker(connection, sql).register()
            found: list[object] = []
            while jobs := await worker.claim(17):
                found += [job.id for job in jobs]
            return found

        found = [id for part in await asyncio.gather(*map(take, opened)) for id in part]
        assert len(found) == len(ids)
        assert set(found) == set(ids)


async def test_a_worker_that_was_given_up_claims_nothing(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register(lease=-1.0)
    await upkeep.rescue_one(connection, sql)
    (id,) = await put(connection, sql, job_row())
    assert await worker.claim() == []
    assert await places(connection, id) == ["ready"]


async def test_a_lease_number_is_used_once(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row(), job_row())
    worker = await Worker(connection, sql).register()
    await worker.claim(1, lease=5)
    with pytest.raises(asyncpg.UniqueViolationError):
        await worker.claim(1, lease=5)
    assert await connection.fetchval("select count(*) from flowrun.ready") == 1


async def test_attempts_go_on_counting(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    for attempt in (1, 2, 3):
        (job,) = await worker.claim()
        assert job.attempt == attempt
        await worker.end([again(job)])


async def test_inputs(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = await put(connection, sql, *[job_row() for _ in range(4)])
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim(limit=3)
    await worker.settle(jobs[:2], results=['{"a":1}', None])
    (child,) = await worker.claim()
    flow = ids[2]
    await connection.execute(
        "insert into flowrun.finished (id, outcome, attempt, spoils) values "
        "(gen_random_uuid(), 3, 1, $1), (gen_random_uuid(), 2, 1, $1)",
        flow,
    )
    found = await claim.inputs(connection, sql, wanted=ids, flows=[flow, ids[0]])
    assert found.results == {ids[0]: '{"a": 1}', ids[1]: None}
    assert found.spoiled == {flow: 2}
    await claim.note_unseen(connection, sql, {child.id: ids[2:]})
    await worker.end([again(child)])
    (child,) = await worker.claim()
    assert json.loads(child.options)["unseen"] == [str(id) for id in ids[2:]]
