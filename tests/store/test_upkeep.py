"""Workers live or are given up; their jobs are rescued or handed back; what is due becomes ready."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from flowrun import mint
from flowrun.store import insert, upkeep
from flowrun.store.settle import Leases
from flowrun.store.statement import Statements
from tests.store.stage import Worker, again, connections, failed, job_row, places, plan_of, put, until_waiting


async def expire(connection: asyncpg.Connection, worker: Worker) -> None:
    await connection.execute("update flowrun.workers set expires_at = '-infinity' where id = $1", worker.id)


# Heartbeats


async def test_a_beat_pushes_the_worker_on(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register(lease=1.0)
    beat = await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0)
    assert beat is not None
    assert beat == upkeep.Beat(False, None, None, 0, None)
    left = await connection.fetchval("select extract(epoch from expires_at - now())::float8 from flowrun.workers")
    assert 50 < left <= 60


async def test_a_beat_of_a_worker_that_was_given_up(connection: asyncpg.Connection, sql: Statements) -> None:
    assert await upkeep.beat(connection, sql, worker_id=mint.job_id(), lease=60.0) is None


async def test_a_late_beat_before_the_rescue_keeps_the_worker(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register(lease=-5.0)
    assert await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0) is not None
    assert await upkeep.rescue_one(connection, sql) is None


async def test_a_beat_tells_of_others_and_of_the_next_due(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register()
    await Worker(connection, sql).register(lease=-1.0)
    await put(connection, sql, job_row(delay=90.0), job_row(delay=30.0))
    beat = await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0)
    assert beat
    assert beat.others_expired
    assert beat.next_due
    assert 25 < beat.next_due <= 30


async def test_a_beat_tells_of_a_lease_without_a_worker(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row(), job_row())
    worker = await Worker(connection, sql).register()
    lost = await Worker(connection, sql).register()
    await worker.claim(1)
    await lost.claim(1)
    assert await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0) == upkeep.Beat(
        False, None, None, 0, None
    )
    await connection.execute("delete from flowrun.workers where id = $1", lost.id)
    assert await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0) == upkeep.Beat(True, None, None, 0, None)


async def test_registering_again_only_extends(connection: asyncpg.Connection, sql: Statements) -> None:
    worker = await Worker(connection, sql).register(lease=-1.0)
    await worker.register(lease=60.0)
    assert await connection.fetchval("select count(*) from flowrun.workers where expires_at > now()") == 1


# Rescue


async def test_a_rescue_counts_the_lost_attempt(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = await put(connection, sql, *[job_row() for _ in range(4)], job_row(queue="other"))
    worker = await Worker(connection, sql, queues=["default", "other"], name="host:1").register()
    jobs = [*await worker.claim(3), *await worker.claim(3)]
    await worker.settle(jobs[:1])
    await expire(connection, worker)
    rescued = await upkeep.rescue_one(connection, sql)
    assert rescued is not None
    assert (rescued.worker, rescued.jobs, rescued.settled.queues) == ("host:1", 4, {"default", "other"})
    assert await places(connection, ids[0]) == ["finished"]
    for id in ids[1:]:
        assert await places(connection, id) == ["ready"]
    assert {row[0] for row in await connection.fetch("select attempt from flowrun.ready")} == {1}
    kept = await connection.fetch("select * from flowrun.attempts")
    assert {(row["attempt"], row["worker"], row["error_type"]) for row in kept} == {(1, "host:1", "flowrun.WorkerLost")}
    assert "worker 'host:1' stopped sending heartbeats" in kept[0]["message"]
    assert all(row["started_at"] is not None for row in kept)
    assert await connection.fetchval("select count(*) from flowrun.workers") == 0
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0
    assert await upkeep.rescue_one(connection, sql) is None


async def test_losses_are_counted_apart_and_have_a_limit(connection: asyncpg.Connection, sql: Statements) -> None:
    (id,) = await put(connection, sql, job_row(options='{"attempts": 1}'))
    for lost in (1, 2, 3):
        worker = await Worker(connection, sql).register()
        await worker.claim()
        await expire(connection, worker)
        rescued = await upkeep.rescue_one(connection, sql, crash_limit=3)
        assert rescued is not None
        assert await places(connection, id) == (["ready"] if lost < 3 else ["finished"])
    assert [failed.id for failed in rescued.settled.failed] == [id]
    error = await connection.fetchval("select error ->> 'message' from flowrun.finished")
    assert error == "its worker died 3 times while it ran; it is not run again (setting crash_limit)"


async def test_a_mark_of_a_late_start_is_never_due(connection: asyncpg.Connection, sql: Statements) -> None:
    """PostgreSQL before 17 cannot subtract from infinity."""
    (id,) = await put(connection, sql, job_row())
    await connection.execute(sql["mark_late"], id)
    assert (await upkeep.make_due(connection, sql)).next_due is None
    worker = await Worker(connection, sql).register()
    assert await upkeep.beat(connection, sql, worker_id=worker.id, lease=60.0) == upkeep.Beat(
        False, None, None, 0, None
    )


async def test_the_living_are_left_alone(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    await worker.claim()
    assert await upkeep.rescue_one(connection, sql) is None
    assert await connection.fetchval("select count(*) from flowrun.leases") == 1


async def test_a_worker_with_nothing_is_only_forgotten(connection: asyncpg.Connection, sql: Statements) -> None:
    await Worker(connection, sql, name="idle").register(lease=-1.0)
    rescued = await upkeep.rescue_one(connection, sql)
    assert rescued is not None
    assert (rescued.worker, rescued.jobs, rescued.settled.queues) == ("idle", 0, set())


async def test_two_rescuers_pass_each_other_by(dsn: str, sql: Statements) -> None:
    async with connections(dsn, 3) as (one, two, watch):
        for name in ("a", "b"):
            await Worker(watch, sql, name=name).register(lease=-1.0)
        transaction = one.transaction()
        await transaction.start()
        first = await one.fetchrow(sql["expired_worker"])
        rescued = await upkeep.rescue_one(two, sql)
        await transaction.rollback()
        assert rescued
        assert {first["name"], rescued.worker} == {"a", "b"}


async def test_many_rescuers_rescue_each_job_once(dsn: str, sql: Statements) -> None:
    async with connections(dsn, 6) as opened:
        await put(opened[0], sql, *[job_row() for _ in range(300)])
        for _ in range(10):
            worker = await Worker(opened[0], sql).register()
            for _ in range(3):
                await worker.claim(10)
            await expire(opened[0], worker)

        async def rescue(connection: asyncpg.Connection) -> int:
            count = 0
            while (rescued := await upkeep.rescue_one(connection, sql)) is not None:
                count += rescued.jobs
            return count

        assert sum(await asyncio.gather(*map(rescue, opened))) == 300
        assert await opened[0].fetchval("select count(*) from flowrun.ready where attempt = 1") == 300


async def test_a_lease_that_outlived_its_worker_is_rescued(connection: asyncpg.Connection, sql: Statements) -> None:
    (id,) = await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    await worker.claim()
    await connection.execute("delete from flowrun.workers")
    rescued = await upkeep.rescue_one(connection, sql)
    assert rescued is not None
    assert (rescued.worker, rescued.jobs, rescued.settled.queues) == (str(worker.id), 1, {"default"})
    assert await places(connection, id) == ["ready"]
    assert await upkeep.rescue_one(connection, sql) is None


async def test_a_job_that_failed_before_keeps_both_attempts(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    await worker.end([again(job) for job in await worker.claim()])
    await worker.claim()
    await expire(connection, worker)
    await upkeep.rescue_one(connection, sql)
    kept = await connection.fetch("select attempt, error_type from flowrun.attempts order by attempt")
    assert kept == [(1, "ValueError"), (2, "flowrun.WorkerLost")]
    assert await connection.fetchval("select attempt from flowrun.ready") == 2


# Handing back


async def test_handing_back_uses_no_attempt(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = await put(connection, sql, *[job_row() for _ in range(4)])
    worker = await Worker(connection, sql).register()
    first, second = await worker.claim(2), await worker.claim(2)
    await worker.settle(first[:1])
    assert await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[1]) == {"default"}
    assert [(await places(connection, id))[0] for id in ids] == ["finished", "ready", "leases", "leases"]
    assert await connection.fetchval("select attempt from flowrun.ready") == 0
    assert await connection.fetchval("select count(*) from flowrun.attempts") == 0
    late = await worker.settle(first, leases=Leases([1], []))
    assert late.ids == []
    assert len((await worker.settle(second)).ids) == 2


async def test_a_worker_leaves(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = await put(connection, sql, *[job_row() for _ in range(3)])
    worker, other = await Worker(connection, sql).register(), await Worker(connection, sql).register()
    await worker.claim(1)
    await worker.claim(1)
    await other.claim(1)
    assert (await upkeep.leave(connection, sql, worker_id=worker.id)).queues == {"default"}
    assert [(await places(connection, id))[0] for id in ids] == ["ready", "ready", "leases"]
    assert await connection.fetch("select id from flowrun.workers") == [(other.id,)]
    assert (await upkeep.leave(connection, sql, worker_id=worker.id)).queues == set()


async def test_a_number_that_was_handed_back_is_never_claimed_under(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    """A statement that was sent, and not begun when its lease was handed back, fails instead of being forgotten."""
    (id,) = await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    assert await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[4, 5]) == set()
    with pytest.raises(asyncpg.UniqueViolationError):
        await worker.claim(lease=4)
    assert await places(connection, id) == ["ready"]
    assert await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[4, 5]) == set()
    await expire(connection, worker)
    rescued = await upkeep.rescue_one(connection, sql)
    assert rescued is not None
    assert (rescued.worker, rescued.jobs, rescued.settled.queues) == ("w", 0, set())
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_settle_cannot_hand_over_under_such_a_number(connection: asyncpg.Connection, sql: Statements) -> None:
    parent, child = mint.flow_ids(2)[1]
    await insert.insert_flow(connection, sql, plan_of([job_row(parent), job_row(child)], [(parent, child, 0)]))
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[9])
    with pytest.raises(asyncpg.UniqueViolationError):
        await worker.settle(jobs, leases=Leases([1], [1]), handoff=5, handoff_lease=9)
    assert (await places(connection, parent), await places(connection, child)) == (["leases"], ["blocked"])
    settled = await worker.settle(jobs, leases=Leases([1], [1]), handoff=5, handoff_lease=10)
    assert [job.id for job in settled.handoff] == [child]


@pytest.mark.parametrize("what", ["claim", "settle"])
async def test_handing_back_waits_for_what_is_under_way(dsn: str, sql: Statements, what: str) -> None:
    """The client has lost the link; the server still works on the statement, and commits it."""
    async with connections(dsn, 3) as (one, two, watch):
        parent, child = mint.flow_ids(2)[1]
        await insert.insert_flow(watch, sql, plan_of([job_row(parent), job_row(child)], [(parent, child, 0)]))
        worker = await Worker(one, sql).register()
        jobs = await worker.claim() if what == "settle" else []
        transaction = one.transaction()
        await transaction.start()
        if jobs:
            await worker.settle(jobs, handoff=5, handoff_lease=9)
        else:
            await worker.claim(lease=9)
        back = asyncio.create_task(upkeep.hand_back(two, sql, worker_id=worker.id, leases=[9]))
        await until_waiting(watch, two)
        await transaction.commit()
        assert await back == {"default"}
        assert await places(watch, child if jobs else parent) == ["ready"]
        assert await watch.fetchval("select attempt from flowrun.ready") == 0


# A role with another isolation level by default must not change anything


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_what_was_settled_while_the_rescue_waited_stays_settled(dsn: str, sql: Statements, level: str) -> None:
    async with connections(dsn, 3, default_transaction_isolation=level) as (one, two, watch):
        await put(watch, sql, job_row(), job_row())
        worker = await Worker(one, sql).register()
        jobs = await worker.claim()
        await expire(watch, worker)
        transaction = one.transaction(isolation="read_committed")
        await transaction.start()
        await worker.settle(jobs[:1])
        rescue = asyncio.create_task(upkeep.rescue_one(two, sql))
        await until_waiting(watch, two)
        await transaction.commit()
        rescued = await rescue
        assert rescued
        assert rescued.jobs == 1
        assert await places(watch, jobs[0].id) == ["finished"]
        assert await places(watch, jobs[1].id) == ["ready"]


async def test_a_finished_job_never_comes_back(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    (job,) = await worker.claim()
    await worker.settle([job])
    await connection.fetch(sql["again"], [job.id, job.id], [1, 1], [0.0, 9.0])
    assert await places(connection, job.id) == ["finished"]


# What is due


async def test_due_jobs_become_ready_with_their_attempts(connection: asyncpg.Connection, sql: Statements) -> None:
    past = datetime.now(UTC) - timedelta(seconds=5)
    ids = await put(
        connection, sql, job_row(run_at=past), job_row(run_at=past, queue="other", priority=1), job_row(delay=50.0)
    )
    await connection.execute("update flowrun.scheduled set attempt = 2 where id = $1", ids[1])
    due = await upkeep.make_due(connection, sql)
    assert due.queues == {"default", "other"}
    assert due.next_due
    assert 40 < due.next_due <= 50
    assert [(await places(connection, id))[0] for id in ids] == ["ready", "ready", "scheduled"]
    row = await connection.fetchrow("select * from flowrun.ready where queue = 'other'")
    assert (row["id"], row["priority"], row["attempt"], row["type"]) == (ids[1], 1, 2, "step")
    due = await upkeep.make_due(connection, sql)
    assert due.queues == set()


async def test_nothing_scheduled(connection: asyncpg.Connection, sql: Statements) -> None:
    assert await upkeep.make_due(connection, sql) == (set(), None)


async def test_more_is_due_than_one_batch_takes(
    connection: asyncpg.Connection, sql: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "DUE_BATCH", 3)
    past = datetime.now(UTC) - timedelta(seconds=60)
    rows = [job_row(run_at=past + timedelta(seconds=at)) for at in range(5)]
    await put(connection, sql, *reversed(rows))
    due = await upkeep.make_due(connection, sql)
    assert due.next_due is not None
    assert due.next_due < 0
    assert sorted(row[0] for row in await connection.fetch("select id from flowrun.ready")) == [
        row.id for row in rows[:3]
    ]
    assert await upkeep.make_due(connection, sql) == ({"default"}, None)
    assert await connection.fetchval("select count(*) from flowrun.ready") == 5


async def test_two_timers_make_each_job_due_once(dsn: str, sql: Statements, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "DUE_BATCH", 7)
    past = datetime.now(UTC) - timedelta(seconds=60)
    async with connections(dsn, 4) as opened:
        await put(opened[0], sql, *[job_row(run_at=past) for _ in range(100)])

        async def all_due(connection: asyncpg.Connection) -> None:
            while (await upkeep.make_due(connection, sql)).next_due is not None:
                pass

        await asyncio.gather(*map(all_due, opened))
        assert await opened[0].fetchval("select count(*) from flowrun.ready") == 100


async def test_a_timer_does_not_wait_for_another(dsn: str, sql: Statements) -> None:
    past = datetime.now(UTC) - timedelta(seconds=60)
    async with connections(dsn, 2) as (one, two):
        await put(one, sql, job_row(run_at=past))
        transaction = one.transaction()
        await transaction.start()
        await upkeep.make_due(one, sql)
        due = await upkeep.make_due(two, sql)
        assert due.queues == set()
        await transaction.commit()
        assert await two.fetchval("select count(*) from flowrun.ready") == 1


async def test_failures_of_rescued_jobs_are_late(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await expire(connection, worker)
    await upkeep.rescue_one(connection, sql)
    settled = await worker.end([failed(job) for job in jobs], Leases([1], [1]))
    assert settled.ids == []
    assert await places(connection, jobs[0].id) == ["ready"]
    assert await connection.fetchval("select count(*) from flowrun.attempts") == 1


async def test_numbers_that_were_voided_long_ago_are_forgotten(connection: asyncpg.Connection, sql: Statements) -> None:
    """A row for every answer that was ever lost would be there as long as the worker lives."""
    worker, other = await Worker(connection, sql).register(), await Worker(connection, sql).register()
    for one in (worker, other):
        await upkeep.hand_back(connection, sql, worker_id=one.id, leases=[1, 2])
    await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[3])
    numbers = "select array_agg(n order by n) from flowrun.leases where worker_id = $1"
    assert await connection.fetchval(numbers, worker.id) == [1, 2, 3]
    await connection.execute("update flowrun.leases set claimed_at = now() - interval '61 minutes' where n < 3")
    await put(connection, sql, job_row())
    await worker.claim(1, lease=50)
    await connection.execute("update flowrun.leases set claimed_at = now() - interval '2 hours' where n = 50")
    await upkeep.hand_back(connection, sql, worker_id=worker.id, leases=[90])
    assert await connection.fetchval(numbers, worker.id) == [3, 50, 90], "what holds a job is no void"
    assert await connection.fetchval(numbers, other.id) == [1, 2]
