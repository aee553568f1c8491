"""Everything but plain success: failures and what follows from them, retries, snoozes, handing back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from time import perf_counter
from uuid import UUID

import asyncpg
import pytest

from flowrun import mint
from flowrun.core.attempt import Ending, Failure
from flowrun.core.growth import Outbox
from flowrun.core.plan import KeyRow, Plan
from flowrun.core.states import Outcome
from flowrun.store import insert, upkeep
from flowrun.store.settle import Leases
from flowrun.store.statement import Statements
from tests.store.stage import Worker, again, failed, job_row, outcomes, places, plan_of, put, succeeded

SUCCEEDED, FAILED, FINISHED = 0, 1, 2
LATER = datetime.now(UTC) + timedelta(hours=1)


async def claimed(connection: asyncpg.Connection, sql: Statements, count: int = 1):
    await put(connection, sql, *[job_row() for _ in range(count)])
    worker = await Worker(connection, sql, name="worker-1").register()
    return worker, await worker.claim()


async def test_a_failure_is_kept_with_its_attempt(connection: asyncpg.Connection, sql: Statements) -> None:
    worker, (job,) = await claimed(connection, sql)
    ending = Ending(
        job.id, job.lease, job.attempt, Outcome.FAILED, failure=Failure("app.Broken", "bröke", "trace"),
        error='{"type": "app.Broken", "message": "bröke"}',
    )  # fmt: skip
    settled = await worker.end([ending])
    assert settled.ids == [job.id]
    row = await connection.fetchrow("select * from flowrun.finished")
    assert (row["outcome"], row["attempt"], row["result"], row["cause"]) == (2, 1, None, None)
    assert json.loads(row["error"])["message"] == "bröke"
    assert row["started_at"] < row["finished_at"]
    kept = await connection.fetchrow("select * from flowrun.attempts")
    assert (kept["attempt"], kept["worker"], kept["error_type"], kept["message"], kept["traceback"]) == (
        1, "worker-1", "app.Broken", "bröke", "trace",
    )  # fmt: skip
    assert kept["started_at"] == row["started_at"]
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


@pytest.mark.parametrize(
    ("ending", "place", "used"),
    [
        (lambda job: again(job), "ready", 1),
        (lambda job: again(job, 60.0), "scheduled", 1),
        (lambda job: again(job, 60.0, used=0), "scheduled", 0),
        (lambda job: again(job, used=0), "ready", 0),
    ],
    ids=["retry at once", "retry later", "snooze", "hand back"],
)
async def test_coming_back(connection: asyncpg.Connection, sql: Statements, ending, place: str, used: int) -> None:
    worker, (job, other) = await claimed(connection, sql, 2)
    settled = await worker.end([ending(job)])
    assert settled.ids == []
    assert (settled.queues, settled.scheduled) == (({"default"}, False) if place == "ready" else (set(), True))
    assert await places(connection, job.id) == [place]
    assert await connection.fetchval(f"select attempt from flowrun.{place} where id = $1", job.id) == used
    assert await connection.fetchval("select count(*) from flowrun.attempts") == used
    assert await connection.fetch("select jobs, attempts from flowrun.leases") == [([other.id], [1])]
    if place == "scheduled":
        seconds = await connection.fetchval("select extract(epoch from run_at - now())::float8 from flowrun.scheduled")
        assert 50 < seconds <= 60


async def test_all_ways_in_one_batch_of_two_leases(connection: asyncpg.Connection, sql: Statements) -> None:
    await put(connection, sql, *[job_row() for _ in range(6)])
    worker = await Worker(connection, sql).register()
    jobs = [*await worker.claim(3), *await worker.claim(3)]
    settled = await worker.end([failed(jobs[0]), again(jobs[1]), succeeded(jobs[3]), again(jobs[4], 9.0)])
    assert sorted(settled.ids) == [jobs[0].id, jobs[3].id]
    assert await connection.fetch("select n, jobs from flowrun.leases order by n") == [
        (1, [jobs[2].id]),
        (2, [jobs[5].id]),
    ]
    assert [(await places(connection, job.id))[0] for job in jobs] == [
        "finished", "ready", "leases", "finished", "scheduled", "leases",
    ]  # fmt: skip
    await worker.end([failed(jobs[2]), again(jobs[5])])
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


@pytest.mark.parametrize("what", ["worker", "attempt", "lease", "settled", "gone"])
async def test_what_does_not_match_changes_nothing(connection: asyncpg.Connection, sql: Statements, what: str) -> None:
    worker, (job, _other) = await claimed(connection, sql, 2)
    sent, by = failed(job), worker
    if what == "worker":
        by = await Worker(connection, sql).register()
    elif what == "attempt":
        sent = sent._replace(attempt=2)
    elif what == "lease":
        sent = sent._replace(lease=2)
    elif what == "settled":
        await worker.settle([job])
    else:
        await worker.end([again(job)])
    tables = ("ready", "scheduled", "finished", "attempts", "blocked")
    before = [await connection.fetch(f"select * from flowrun.{table}") for table in tables]
    for ending in (sent, sent._replace(outcome=None, failure=None, attempts_used=1)):
        settled = await by.end([ending], Leases([1, 2], []))
        assert (settled.ids, settled.queues) == ([], set())
    assert [await connection.fetch(f"select * from flowrun.{table}") for table in tables] == before


async def test_a_job_twice_in_one_batch_ends_once(connection: asyncpg.Connection, sql: Statements) -> None:
    parent, other, child = mint.flow_ids(3)[1]
    await insert.insert_flow(
        connection, sql, plan_of(list(map(job_row, (parent, other, child))), [(parent, child, 2), (other, child, 2)])
    )
    worker = await Worker(connection, sql).register()
    jobs = await worker.claim()
    settled = await worker.end([failed(jobs[0]), failed(jobs[0])])
    assert settled.ids == [parent]
    assert await connection.fetch("select need, open from flowrun.blocked") == [(1, 1)]


# What follows for the children


async def run(
    connection: asyncpg.Connection,
    sql: Statements,
    edges: list[tuple[int, int, int]],
    *,
    needs=None,
    optional=(),
    **how,
) -> tuple[list[UUID], Worker, dict]:
    """A flow of as many jobs as the edges name; its first jobs are claimed."""
    count = 1 + max(max(parent, child) for parent, child, _ in edges)
    flow = mint.job_id()
    ids = list(mint.flow_ids(count)[1])
    rows = [job_row(id, flow_id=flow, optional=at in optional, **how.get(f"n{at}", {})) for at, id in enumerate(ids)]
    plan = plan_of(
        rows,
        [(ids[parent], ids[child], condition) for parent, child, condition in edges],
        {ids[at]: need for at, need in (needs or {}).items()},
    )
    await insert.insert_flow(connection, sql, plan)
    worker = await Worker(connection, sql).register()
    return ids, worker, {job.id: job for job in await worker.claim()}


async def test_what_asked_for_success_is_skipped_and_what_asked_for_failure_is_released(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    ids, worker, jobs = await run(
        connection, sql,
        [(0, 1, SUCCEEDED), (0, 2, FAILED), (0, 3, FINISHED), (1, 4, SUCCEEDED), (1, 5, FINISHED), (1, 6, FAILED)],
    )  # fmt: skip
    settled = await worker.end([failed(jobs[ids[0]])])
    assert set(settled.ids) == {ids[0], ids[1], ids[4], ids[6]}
    assert [(await places(connection, id))[0] for id in ids] == [
        "finished", "finished", "ready", "ready", "finished", "ready", "finished",
    ]  # fmt: skip
    rows = {row["id"]: row for row in await connection.fetch("select * from flowrun.finished")}
    assert [rows[ids[at]]["outcome"] for at in (0, 1, 4, 6)] == [2, 4, 4, 4]
    assert [rows[ids[at]]["cause"] for at in (0, 1, 4, 6)] == [None, ids[0], ids[1], ids[1]]
    messages = [json.loads(rows[ids[at]]["error"])["message"] for at in (1, 4, 6)]
    assert messages == [
        "its parent step failed; it was to succeed",
        "its parent step was skipped; it was to succeed",
        "its parent step was skipped; it was to fail",
    ]
    assert {rows[ids[at]]["attempt"] for at in (1, 4, 6)} == {0}
    assert {rows[ids[at]]["started_at"] for at in (1, 4, 6)} == {None}


@pytest.mark.parametrize("name", ['say "hi"', '"', "back\\slash\\", "{parent}", "ü %s <b>", "a/b"])
async def test_a_skip_names_its_cause(connection: asyncpg.Connection, sql: Statements, name: str) -> None:
    ids = list(mint.flow_ids(2)[1])
    rows = [job_row(ids[0])._replace(name=name), job_row(ids[1])]
    await insert.insert_flow(connection, sql, plan_of(rows, [(*ids, 0)]))
    worker = await Worker(connection, sql).register()
    await worker.end([failed(job) for job in await worker.claim()])
    error = await connection.fetchval("select error from flowrun.finished where id = $1", ids[1])
    assert json.loads(error) == {"message": f"its parent {name} failed; it was to succeed"}


async def test_a_failure_spoils_its_flow_and_a_skip_does_not(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 1, SUCCEEDED)])
    await worker.end([failed(jobs[ids[0]])])
    flow = await connection.fetchval("select flow_id from flowrun.jobs where id = $1", ids[0])
    spoils = dict(await connection.fetch("select id, spoils from flowrun.finished"))
    assert spoils == {ids[0]: flow, ids[1]: None}


async def test_an_optional_failure_counts_as_success_and_spoils_nothing(
    connection: asyncpg.Connection, sql: Statements
) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 1, SUCCEEDED), (0, 2, FAILED)], optional={0})
    settled = await worker.end([failed(jobs[ids[0]])])
    assert settled.ids == [ids[0]]
    assert [(await places(connection, id))[0] for id in ids] == ["finished", "ready", "ready"]
    assert await connection.fetchval("select spoils from flowrun.finished") is None


async def test_a_cancelled_job_spoils_even_when_optional(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 1, SUCCEEDED), (0, 2, FAILED)], optional={0})
    job = jobs[ids[0]]
    settled = await worker.end([Ending(job.id, job.lease, job.attempt, Outcome.CANCELLED)])
    assert set(settled.ids) == set(ids)
    assert await connection.fetchval("select spoils from flowrun.finished where id = $1", ids[0]) is not None


async def test_success_the_slow_way(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 1, SUCCEEDED), (0, 2, FAILED), (2, 3, SUCCEEDED)])
    settled = await worker.settle([jobs[ids[0]]])
    assert settled.slow == [ids[0]]
    settled = await worker.end([succeeded(jobs[ids[0]], '{"a": 1}')], Leases([1], [1]))
    assert await outcomes(connection) == {
        ids[0]: Outcome.SUCCEEDED, ids[2]: Outcome.SKIPPED, ids[3]: Outcome.SKIPPED,
    }  # fmt: skip
    assert await connection.fetchval("select result from flowrun.finished where id = $1", ids[0]) == '{"a": 1}'
    assert await places(connection, ids[1]) == ["ready"]
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_any_of_survives_until_nobody_is_left(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 3, 0), (1, 3, 0), (2, 3, 0)], needs={3: 1})
    await worker.end([failed(jobs[ids[0]])])
    assert await connection.fetch("select need, open from flowrun.blocked") == [(1, 2)]
    await worker.end([failed(jobs[ids[1]])])
    assert await connection.fetch("select need, open from flowrun.blocked") == [(1, 1)]
    settled = await worker.end([failed(jobs[ids[2]])])
    assert set(settled.ids) == {ids[2], ids[3]}
    assert await connection.fetchval("select cause from flowrun.finished where id = $1", ids[3]) == ids[2]


async def test_what_is_decided_stays_so(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 2, 0), (1, 2, 0), (0, 3, 2), (1, 3, 2)], needs={3: 1})
    await worker.end([failed(jobs[ids[0]])])
    before = await connection.fetch("select * from flowrun.finished where id = $1", ids[2])
    assert await places(connection, ids[3]) == ["ready"]
    await worker.settle([jobs[ids[1]]])
    assert await connection.fetch("select * from flowrun.finished where id = $1", ids[2]) == before
    assert await places(connection, ids[3]) == ["ready"]


async def test_released_children_keep_their_moment(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(
        connection, sql, [(0, 1, FAILED), (0, 2, FAILED), (0, 3, FINISHED)],
        n1={"delay": 60.0}, n2={"run_at": LATER}, n3={"queue": "other"},
    )  # fmt: skip
    settled = await worker.end([failed(jobs[ids[0]])])
    assert (settled.queues, settled.scheduled) == ({"other"}, True)
    assert [(await places(connection, id))[0] for id in ids[1:]] == ["scheduled", "scheduled", "ready"]
    at = dict(await connection.fetch("select id, run_at from flowrun.scheduled"))
    assert at[ids[2]] == LATER


async def test_two_parents_fail_in_one_batch(connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 2, FINISHED), (1, 2, FINISHED), (0, 3, 0), (1, 3, 0)])
    await worker.end([failed(jobs[ids[0]]), failed(jobs[ids[1]])])
    assert [(await places(connection, id))[0] for id in ids[2:]] == ["ready", "finished"]
    assert await connection.fetchval("select cause from flowrun.finished where id = $1", ids[3]) in ids[:2]


@pytest.mark.parametrize("shape", ["chain", "fan"])
async def test_10_000_are_skipped_at_once(connection: asyncpg.Connection, sql: Statements, shape: str) -> None:
    ids = list(mint.flow_ids(10_002)[1])
    if shape == "chain":
        edges = [(a, b, 0) for a, b in zip(ids, ids[1:], strict=False)]
    else:
        edges = [(ids[0], id, 0) for id in ids[1:-1]] + [(id, ids[-1], 0) for id in ids[1:-1]]
    await insert.insert_flow(connection, sql, plan_of([job_row(id) for id in ids], edges))
    worker = await Worker(connection, sql).register()
    (job,) = await worker.claim()
    begun = perf_counter()
    settled = await worker.end([failed(job)])
    assert len(settled.ids) == len(ids)
    assert perf_counter() - begun < 15
    assert set((await outcomes(connection)).values()) == {Outcome.FAILED, Outcome.SKIPPED}
    assert await connection.fetchval("select count(*) from flowrun.blocked") == 0


async def test_an_ending_that_cannot_be_stored_stores_nothing(connection: asyncpg.Connection, sql: Statements) -> None:
    worker, (job, other) = await claimed(connection, sql, 2)
    with pytest.raises(asyncpg.UntranslatableCharacterError):
        await worker.end([again(other), succeeded(job, '"\\u0000"')], Leases([1], [1]))
    assert await places(connection, other.id) == ["leases"]
    assert await places(connection, job.id) == ["leases"]


async def test_people_see_it(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    ids, worker, jobs = await run(connection, sql, [(0, 1, SUCCEEDED), (0, 2, FAILED)])
    states = {row["id"]: row["state"] for row in await connection.fetch("select id, state from flowrun.job_status")}
    assert states == {ids[0]: "running", ids[1]: "waiting", ids[2]: "waiting"}
    await worker.end([again(jobs[ids[0]], 60.0)])
    assert await connection.fetchval("select state from flowrun.job_status where id = $1", ids[0]) == "scheduled"
    await connection.execute("update flowrun.scheduled set run_at = now()")
    await upkeep.make_due(connection, sql)
    (job,) = await worker.claim()
    await worker.end([failed(job)])
    rows = {row["id"]: row for row in await connection.fetch("select * from flowrun.job_status")}
    assert [rows[id]["state"] for id in ids] == ["failed", "skipped", "ready"]
    assert (rows[ids[0]]["attempt"], rows[ids[0]]["error_type"], rows[ids[0]]["error"]) == (2, "ValueError", "broke")
    assert (rows[ids[1]]["cause"], rows[ids[1]]["error"]) == (ids[0], "its parent step failed; it was to succeed")


@pytest.mark.parametrize("mine", [True, False], ids=["settled", "lost meanwhile"])
async def test_keys_of_what_a_handler_dispatched(connection: asyncpg.Connection, sql: Statements, mine: bool) -> None:
    """They are taken before the job is found to be this worker's, and given back if it is not: with a time to live,
    a key would be held by a job that was never stored."""
    worker, (job,) = await claimed(connection, sql)
    sent = job_row()
    key = KeyRow("job:test", "order 7", sent.id, "existing", 3600.0)
    plan = Plan(jobs=[sent], free=[sent], keys=[key])
    ending = succeeded(job)._replace(more=Outbox([plan]), attempt=job.attempt if mine else job.attempt + 1)
    settled = await worker.end([ending])
    assert settled.ids == ([job.id] if mine else [])
    assert await connection.fetchval("select count(*) from flowrun.jobs where id = $1", sent.id) == mine
    held = await connection.fetchrow("select id, expires_at > now() + interval '50 min' from flowrun.keys")
    assert (None if held is None else tuple(held)) == ((sent.id, True) if mine else None)
