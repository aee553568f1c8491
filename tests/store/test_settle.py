"""Settling successes: outcomes, releases, handing over, and the fence around all of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from flowrun import mint
from flowrun.core.attempt import Claimed
from flowrun.store import insert, upkeep
from flowrun.store.settle import Leases
from flowrun.store.statement import Statements
from tests.store.stage import Worker, again, connections, job_row, places, plan_of, put, succeeded, until_waiting

LATER = datetime.now(UTC) + timedelta(hours=1)
EARLIER = datetime.now(UTC) - timedelta(hours=1)


_NOTHING = """select 2 as note where ($1::uuid, $2::integer, $3::bigint, $4::text[], $5::text[], $6::integer, $7::bigint,
    $8::uuid, $9::smallint, $10::text) is null"""


@pytest.fixture(params=["alone", "as a batch"])
def sql(request: pytest.FixtureRequest, sql: Statements) -> Statements:
    """A batch of one has a statement of its own, which may leave the job to that of all batches: both do the same."""
    if request.param == "as a batch":
        sql._rendered["settle_one"] = _NOTHING
    return sql


async def family(
    connection: asyncpg.Connection, sql: Statements, parents: int, *children: dict, condition: int = 0
) -> tuple[list[UUID], list[UUID]]:
    """``children``, each of which waits for all of ``parents``."""
    ids = list(mint.flow_ids(parents + len(children))[1])
    above, below = ids[:parents], ids[parents:]
    rows = [*map(job_row, above), *(job_row(id, **options) for id, options in zip(below, children, strict=True))]
    edges = [(parent, child, condition) for parent in above for child in below]
    await insert.insert_flow(connection, sql, plan_of(rows, edges))
    return above, below


async def counters(connection: asyncpg.Connection, id: UUID) -> tuple[int, int] | None:
    row = await connection.fetchrow("select need, open from flowrun.blocked where id = $1", id)
    return row and tuple(row)


async def test_results_and_times_are_kept(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = await put(connection, sql, job_row(), job_row(), job_row())
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    settled = await worker.settle(jobs, results=['{"a": "ü"}', None, "null"])
    assert sorted(settled.ids) == ids
    assert (settled.handoff, settled.slow, settled.queues, settled.scheduled) == ([], [], set(), False)
    rows = {row["id"]: row for row in await connection.fetch("select * from flowrun.finished")}
    assert [rows[id]["result"] for id in ids] == ['{"a": "ü"}', None, "null"]
    for row in rows.values():
        assert (row["outcome"], row["attempt"], row["spoils"], row["error"]) == (1, 1, None, None)
        assert row["started_at"] < row["finished_at"]
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_lease_lives_until_its_last_job(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, *[job_row() for _ in range(3)])
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    for job, left in zip(jobs, (1, 1, 0), strict=True):
        await worker.settle([job])
        assert await connection.fetchval("select count(*) from flowrun.leases") == left


async def test_jobs_of_several_leases_in_one_batch(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, *[job_row() for _ in range(4)])
    worker = await Worker(connection, sql).register()
    jobs = [*await worker.claim(2), *await worker.claim(2)]
    assert len((await worker.settle(jobs[1:])).ids) == 3
    assert await connection.fetch("select n from flowrun.leases") == [(1,)]


async def test_a_child_waits_for_all_its_parents(connection: asyncpg.Connection, sql: Statements) -> None:
    parents, (child,) = await family(connection, sql, 3, {})
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await worker.settle(jobs[:1])
    assert await counters(connection, child) == (2, 2)
    settled = await worker.settle(jobs[1:2])
    assert await counters(connection, child) == (1, 1)
    assert (settled.queues, await places(connection, child)) == (set(), ["blocked"])
    settled = await worker.settle(jobs[2:])
    assert settled.queues == {"default"}
    assert await places(connection, child) == ["ready"]


async def test_two_parents_in_one_batch_count_as_two(connection: asyncpg.Connection, sql: Statements) -> None:
    _, (child,) = await family(connection, sql, 3, {})
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await worker.settle(jobs[:2])
    assert await counters(connection, child) == (1, 1)
    await worker.settle(jobs[2:])
    assert await places(connection, child) == ["ready"]


async def test_one_parent_sent_twice_in_one_batch_counts_as_one(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    _, (child,) = await family(connection, sql, 2, {})
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    before = await everything(connection)
    settled = await worker.settle([jobs[0], jobs[0]], leases=Leases([1], []))
    assert (settled.ids, settled.slow) == ([], [jobs[0].id] * 2)
    assert await everything(connection) == before
    settled = await worker.end([succeeded(jobs[0]), succeeded(jobs[0])], leases=Leases([1], []))
    assert settled.ids == [jobs[0].id]
    assert await counters(connection, child) == (1, 1)


async def test_two_edges_between_the_same_jobs_are_two(connection: asyncpg.Connection, sql: Statements) -> None:
    parent, other, child = mint.flow_ids(3)[1]
    rows = [job_row(id) for id in (parent, other, child)]
    await insert.insert_flow(
        connection, sql, plan_of(rows, [(parent, child, 0), (parent, child, 2), (other, child, 0)])
    )
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await worker.settle(jobs[:1])
    assert await counters(connection, child) == (1, 1)


async def test_any_of_releases_once(connection: asyncpg.Connection, sql: Statements) -> None:
    ids = list(mint.flow_ids(4)[1])
    edges = [(parent, ids[3], 0) for parent in ids[:3]]
    await insert.insert_flow(connection, sql, plan_of(list(map(job_row, ids)), edges, {ids[3]: 2}))
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await worker.settle(jobs[:1])
    assert await counters(connection, ids[3]) == (1, 2)
    await worker.settle(jobs[1:2])
    assert await places(connection, ids[3]) == ["ready"]
    settled = await worker.settle(jobs[2:])
    assert len(settled.ids) == 1
    assert await places(connection, ids[3]) == ["ready"]
    assert not settled.queues


async def test_a_child_with_a_moment_is_scheduled(connection: asyncpg.Connection, sql: Statements) -> None:
    _, below = await family(
        connection, sql, 1, {"delay": 60.0}, {"run_at": LATER}, {"run_at": EARLIER}, {"delay": 1.0, "run_at": LATER}, {}
    )
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim(), handoff=10)
    assert settled.scheduled
    assert {job.id for job in settled.handoff} == {below[2], below[4]}
    assert [await places(connection, id) for id in below] == [["scheduled"], ["scheduled"], ["leases"], ["scheduled"], ["leases"]]  # fmt: skip
    at = dict(await connection.fetch("select id, run_at from flowrun.scheduled"))
    assert at[below[1]] == at[below[3]] == LATER
    assert 50 < (at[below[0]] - datetime.now(UTC)).total_seconds() < 65


async def test_handoff_takes_the_most_urgent_up_to_its_limit(connection: asyncpg.Connection, sql: Statements) -> None:
    _, below = await family(connection, sql, 1, *({"priority": priority} for priority in (5, 1, 9, 1, 5)))
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim(), handoff=3, handoff_lease=77)
    assert [job.id for job in settled.handoff] == [below[1], below[3], below[0]]
    assert {(job.lease, job.attempt) for job in settled.handoff} == {(77, 1)}
    lease = await connection.fetchrow("select * from flowrun.leases")
    assert (lease["worker_id"], lease["n"], lease["attempts"]) == (worker.id, 77, [1, 1, 1])
    assert set(lease["jobs"]) == {below[1], below[3], below[0]}
    assert settled.queues == {"default"}
    assert sorted(row[0] for row in await connection.fetch("select id from flowrun.ready")) == [below[2], below[4]]
    assert len((await worker.settle(settled.handoff)).ids) == 3


async def test_what_is_handed_off_starts_after_its_parent_has_ended(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    (parent,), _ = await family(connection, sql, 1, {})
    worker = await Worker(connection, sql).register()
    await worker.settle(await worker.claim(), handoff=1)
    ended = await connection.fetchval("select finished_at from flowrun.finished where id = $1", parent)
    assert ended <= await connection.fetchval("select claimed_at from flowrun.leases")


async def test_handoff_of_nothing_makes_no_lease(connection: asyncpg.Connection, sql: Statements) -> None:
    _, (child,) = await family(connection, sql, 1, {})
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim(), handoff=0)
    assert settled.handoff == []
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0
    assert await places(connection, child) == ["ready"]


async def test_handoff_only_of_its_own_queues_and_types(connection: asyncpg.Connection, sql: Statements) -> None:
    _, below = await family(
        connection, sql, 1, {}, {"queue": "other"}, {"type": "other"}, {"queue": "flowrun", "type": "flowrun.end", "kind": 1}
    )  # fmt: skip
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim(), handoff=10)
    assert [job.id for job in settled.handoff] == [below[0], below[3]]
    assert settled.queues == {"default", "other"}
    assert settled.handoff[1].kind == 1


async def test_a_failed_edge_sends_a_success_the_slow_way(connection: asyncpg.Connection, sql: Statements) -> None:
    """Nothing of it is done here: its lease and its children are as they were; the others of the batch are settled."""
    (parent,), (sorry,) = await family(connection, sql, 1, {}, condition=1)
    (single,) = await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim())
    assert settled.slow == [parent]
    assert settled.ids == [single]
    assert await places(connection, parent) == ["leases"]
    assert await counters(connection, sorry) == (1, 1)
    assert await connection.fetchval("select jobs from flowrun.leases") == [parent, single]


# The fence


def other(job: Claimed, **changes: object) -> Claimed:
    copy = object.__new__(Claimed)
    for name in ("id", "lease", "attempt"):
        setattr(copy, name, changes.get(name, getattr(job, name)))
    return copy


async def everything(connection: asyncpg.Connection) -> dict[str, list]:
    tables = ("blocked", "ready", "scheduled", "leases", "finished", "attempts")
    return {table: await connection.fetch(f"select * from flowrun.{table} order by 1, 2") for table in tables}


@pytest.mark.parametrize("what", ["worker", "attempt", "lease", "unknown job", "another's lease"])
async def test_what_does_not_match_changes_nothing(connection: asyncpg.Connection, sql: Statements, what: str) -> None:
    await family(connection, sql, 1, {}, {})
    await put(connection, sql, job_row())
    worker, stranger = await Worker(connection, sql).register(), await Worker(connection, sql).register()
    (job,) = await worker.claim(1)
    (theirs,) = await stranger.claim(1)
    before = await everything(connection)
    by, sent = worker, job
    if what == "worker":
        by = stranger
    elif what == "attempt":
        sent = other(job, attempt=2)
    elif what == "lease":
        sent = other(job, lease=2)
    elif what == "unknown job":
        sent = other(job, id=mint.job_id())
    else:
        sent = other(theirs, id=theirs.id)
    settled = await by.settle([sent], handoff=5, leases=Leases([1, 2], []))
    assert (settled.ids, settled.slow, settled.handoff, settled.queues) == ([], [], [], set())
    assert await everything(connection) == before


async def test_twice_changes_nothing(connection: asyncpg.Connection, sql: Statements) -> None:
    """The same call again, after an answer that was lost; a part of the lease is still held."""
    _, below = await family(connection, sql, 2, {}, {})
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    await worker.settle(jobs[:1], leases=Leases([1], []))
    before = await everything(connection)
    again = await worker.settle(jobs[:1], leases=Leases([1], []), handoff=5)
    assert (again.ids, again.handoff) == ([], [])
    assert await everything(connection) == before
    last = await worker.settle(jobs[1:], leases=Leases([1], [1]), handoff=5, handoff_lease=8)
    assert {job.id for job in last.handoff} == set(below)
    before = await everything(connection)
    again = await worker.settle(jobs[1:], leases=Leases([1], [1]), handoff=5, handoff_lease=9)
    assert (again.ids, again.handoff) == ([], [])
    assert await everything(connection) == before


async def test_late_after_a_rescue(connection: asyncpg.Connection, sql: Statements) -> None:
    _, (child,) = await family(connection, sql, 1, {})
    worker = await Worker(connection, sql).register(lease=-1.0)
    await connection.execute("update flowrun.workers set expires_at = now() + interval '1 minute'")
    jobs = await worker.claim()
    await connection.execute("update flowrun.workers set expires_at = '-infinity'")
    await upkeep.rescue_one(connection, sql)
    heir = await Worker(connection, sql).register()
    mine = await heir.claim()
    assert [job.id for job in mine] == [job.id for job in jobs]
    late = await worker.settle(jobs, handoff=5, leases=Leases([1], [1]))
    assert (late.ids, late.handoff) == ([], [])
    assert await counters(connection, child) == (1, 1)
    assert len((await heir.settle(mine)).ids) == 1
    assert await connection.fetchval("select attempt from flowrun.finished") == 2


async def test_late_after_it_came_back_to_the_same_worker(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, job_row())
    worker = await Worker(connection, sql).register()
    (first,) = await worker.claim()
    await worker.end([again(first)])
    (second,) = await worker.claim()
    assert (await worker.settle([first], leases=Leases([1, 2], []))).ids == []
    assert (await worker.settle([second])).ids == [second.id]


async def test_the_same_call_while_the_first_is_under_way(dsn: str, sql: Statements) -> None:
    """The link was lost, the server works on: the repeat waits for it and changes nothing."""
    async with connections(dsn, 3) as (one, two, watch):
        _, (child,) = await family(watch, sql, 2, {})
        worker = await Worker(one, sql).register()
        jobs = await worker.claim()
        transaction = one.transaction()
        await transaction.start()
        await worker.settle(jobs[:1], leases=Leases([1], []))
        worker.connection = two
        repeat = asyncio.create_task(worker.settle(jobs[:1], leases=Leases([1], []), handoff=5))
        await until_waiting(watch, two)
        await transaction.commit()
        assert (await repeat).ids == []
        assert await counters(watch, child) == (1, 1)


async def test_a_result_that_cannot_be_stored_stores_nothing(connection: asyncpg.Connection, sql: Statements) -> None:
    _, (child,) = await family(connection, sql, 2, {})
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    before = await everything(connection)
    with pytest.raises(asyncpg.UntranslatableCharacterError):
        await worker.settle(jobs, results=["1", '"\\u0000"'], leases=Leases([1], [1]))
    assert await everything(connection) == before


async def test_a_batch_of_thousands(connection: asyncpg.Connection, sql: Statements) -> None:
    parents, children = await family(connection, sql, 1, *({} for _ in range(3000)))
    worker = await Worker(connection, sql).register()
    settled = await worker.settle(await worker.claim(), handoff=1000)
    assert [job.id for job in settled.handoff] == children[:1000]
    more = await worker.settle(settled.handoff)
    assert len(more.ids) == 1000
    assert await connection.fetchval("select count(*) from flowrun.ready") == 2000
