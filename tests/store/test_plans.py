"""Plans are part of the code: no statistics, fresh, stale or missing, may turn a look-up into a scan.

Every statement is really executed on a batch of 2,000 and rolled back, and the rows that each node of its plan went
through are counted: a sequential scan, a sort of a whole queue and a nested loop over two lists all show there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from flowrun import mint
from flowrun.store import insert
from flowrun.store.statement import Statements
from tests.store.plans import MODES, Explainer, explainer
from tests.store.stage import Worker, connections, job_row, plan_of

FRESH = True
BATCH = 2000
BIG = {"jobs", "edges", "blocked", "scheduled", "ready", "finished", "attempts"}
MUST_USE: Mapping[str, set[str]] = {
    "claim": {"ready_pkey", "jobs_pkey"},
    "claim_bounded": {"ready_pkey", "jobs_pkey"},
    "claim_held": {"ready_pkey", "jobs_pkey"},
    "claim_limited": {"ready_pkey", "jobs_pkey"},
    "settle": {"leases_pkey", "edges_pkey", "blocked_pkey", "jobs_pkey"},
    "settle_limited": {"leases_pkey", "edges_pkey", "blocked_pkey", "jobs_pkey", "ready_pkey"},
    "leave": {"leases_pkey", "finished_pkey"},
    "unfinished": {"finished_pkey"},
    "again": {"finished_pkey", "jobs_pkey"},
    "finish": {"jobs_pkey"},
    "reach": {"edges_pkey"},
    "lock_blocked": {"blocked_pkey"},
    "cascade": {"blocked_pkey", "jobs_pkey"},
    "inputs": {"finished_pkey", "finished_spoils", "cancels_pkey"},
    "parents": {"jobs_pkey", "finished_pkey"},
    "outcomes": {"finished_pkey"},
    "due": {"scheduled_run_at", "jobs_pkey", "deadlines_due_at"},
    "beat": {"workers_pkey"},
    "news": {"scheduled_run_at", "deadlines_due_at"},
    "expired_worker": {"leases_pkey"},
    "take_leases": {"leases_pkey"},
}
UNPINNED = {
    "inputs",
    "parents",
    "outcomes",
    "due",
    "beat",
    "news",
    "expired_worker",
    "unfinished",
    "again",
    "insert_jobs",
    "insert_taken",
    "take_leases",
}
"""What (also) runs on connections without pinned settings, and must do without them. Of the others, only claims cannot:
unpinned it reads the whole queue by a bitmap and sorts it (300,000 ready: 230-780 ms)."""

HOT = {
    "claim",
    "claim_bounded",
    "claim_held",
    "claim_limited",
    "settle",
    "settle_limited",
    "insert_jobs",
    "insert_taken",
    "inputs",
    "parents",
    "due",
    "beat",
    "news",
    "outcomes",
    "leave",
    "unfinished",
    "finish",
}

FILL = {
    "jobs": """insert into flowrun.jobs (id, queue, type, args, created_at)
        select ('a' || lpad(to_hex(i), 31, '0'))::uuid, 'other', 'step', '{}', 'epoch' from generate_series(1, $1) i""",
    "ready": """insert into flowrun.ready (queue, priority, id, type)
        select 'default', 7, ('a' || lpad(to_hex(i), 31, '0'))::uuid, 'step' from generate_series(1, $1) i""",
    "finished": """insert into flowrun.finished (id, outcome, attempt, finished_at)
        select ('b' || lpad(to_hex(i), 31, '0'))::uuid, 1, 1, 'epoch' from generate_series(1, $1) i""",
}


class Batch:
    """2,000 jobs in leases, each of them with one of two parents' edges, and all that the statements need of them."""

    def __init__(self, worker: Worker, jobs: list[Any], children: list[Any], finished: list[Any]) -> None:
        self.worker, self.jobs, self.children, self.finished = worker, jobs, children, finished

    def arguments(self) -> dict[str, list[Any]]:
        worker, jobs, children = self.worker.id, self.jobs, self.children
        ids, leases = [job.id for job in jobs], sorted({job.lease for job in jobs})
        numbers, count = [job.lease for job in jobs], len(jobs)
        third = len(children) // 3
        waiting = children[2 * third :]
        ones, none = [1] * count, [None] * count
        new = [mint.job_id() for _ in ids]
        return {
            "claim": [worker, 9_999_999, 400, ["step"], ["default", "other"], [-1, -1], [UUID(int=0)] * 2, 0],
            "claim_bounded": [worker, 7_777_777, 400, ["step"], ["default"], 0, [], []],
            "claim_limited": [
                worker, 6_666_666, 400, ["step"], ["default"], ["default", "other"], ["", ""], 200, 0, [], []
            ],
            "claim_held": [
                worker, 6_666_667, ["step"], ["default", "other"], [-1, -1], [UUID(int=0)] * 2, [200, 200], 0,
                ["queue:default"], [7], ["default"],
            ],
            "settle": [worker, 200, 8_888_888, ["default"], ["step"], 0, leases, leases, ids, numbers, ones, ["1"] * count],
            "settle_limited": [
                worker, 200, 8_888_888, ["default"], ["step"], 0, leases, leases, ids, numbers, ones, ["1"] * count,
                [1] * count, [], ["default"], [8_888_889], ["queue:default"], 1, ["queue:default"], leases[:1],
            ],
            "leave": [worker, leases, leases[:1], ids[::2], numbers[::2], ones[::2]],
            "take_leases": [worker, leases],
            "unfinished": [ids],
            "again": [ids, ones, [0.0] * count],
            "finish": [ids, [2] * count, ones, none, none, none, none, [False] * count],
            "reach": [ids, [2] * count, [False] * count],
            "lock_blocked": [children],
            "cascade": [children[:third], children[third : 2 * third], waiting, [1] * len(waiting), [1] * len(waiting)],
            "inputs": [self.finished, self.finished[:50]],
            "parents": [ids[::2], children[::2]],
            "outcomes": [self.finished],
            "due": [1000],
            "beat": [worker, 30.0],
            "news": [worker],
            "expired_worker": [],
            "insert_jobs": [
                [mint.job_id() for _ in ids], ["default"] * count, ["step"] * count, ["{}"] * count, [5] * count,
                [False] * count, none, none, none, [], [],
            ],
            "insert_taken": [
                new, ["default"] * count, ["step"] * count, ["{}"] * count, [5] * count, [False] * count, none, none,
                none, worker, 5_555_555, new[::2], 0,
            ],
        }  # fmt: skip


async def batch(connection: asyncpg.Connection, sql: Statements, per_lease: int, size: int = BATCH) -> Batch:
    worker = await Worker(connection, sql).register()
    await connection.execute(
        "insert into flowrun.queues (name, concurrency) values ('default', 1000) on conflict do nothing"
    )
    parents = list(mint.flow_ids(2 * size)[1])
    children = list(mint.flow_ids(size)[1])
    edges = [(parents[2 * at + side], child, 0) for at, child in enumerate(children) for side in (0, 1)]
    if size:
        await insert.insert_flow(connection, sql, plan_of([job_row(id) for id in (*parents, *children)], edges))
    jobs: list[Any] = []
    while len(jobs) < size:
        jobs += await worker.claim(min(400, size - len(jobs)))
    if per_lease == 1:
        await connection.execute("delete from flowrun.leases")
        await connection.execute(
            "insert into flowrun.leases (worker_id, n, jobs, attempts) "
            "select $1, n, array[id], '{1}' from unnest($2::uuid[]) with ordinality as u (id, n)",
            worker.id,
            [job.id for job in jobs],
        )
        for n, job in enumerate(jobs, 1):
            job.lease = n
    await connection.execute(
        "insert into flowrun.scheduled (id, run_at) "
        "select id, 'epoch' from flowrun.jobs where queue = 'default' order by id desc limit $1",
        size,
    )
    finished = await connection.fetch(
        "insert into flowrun.finished (id, outcome, attempt) "
        "select gen_random_uuid(), 1, 1 from generate_series(1, $1) returning id",
        size,
    )
    await connection.execute("delete from flowrun.ready where priority = 5")  # only the fill stays
    return Batch(worker, jobs, children, [row[0] for row in finished])


async def fill(dsn: str, connection: asyncpg.Connection, rows: int) -> None:
    async with connections(dsn, len(FILL)) as opened:
        for table in FILL:  # it is to be fast, not to last
            await connection.execute(f"alter table flowrun.{table} set unlogged")
            await connection.execute(f"alter table flowrun.{table} set (autovacuum_enabled = off)")
        await asyncio.gather(
            *(one.execute(text, rows, timeout=60) for one, text in zip(opened, FILL.values(), strict=True))
        )


async def check(explained: Explainer, work: Batch, mode: str, what: str, names: set[str] | None = None) -> None:
    for name, arguments in work.arguments().items():
        if mode != "pinned" and name not in UNPINNED or names is not None and name not in names:
            continue
        plan = await explained.explain(name, arguments)
        where = f"{name}, {mode}, {what}: {plan.worst()}"
        assert plan.effort() <= 3 * BATCH, where
        if mode == "pinned":
            assert not plan.scanned() & BIG, where
            assert plan.indexes() >= MUST_USE.get(name, set()), where


@pytest.mark.parametrize(("rows", "per_lease"), [(0, 1), (0, 400), (1000, 400)])
async def test_no_statistics_change_what_a_statement_does(
    dsn: str, connection: asyncpg.Connection, sql: Statements, rows: int, per_lease: int
) -> None:
    async with AsyncExitStack() as stack:
        stale = {mode: await stack.enter_async_context(explainer(dsn, mode, sql)) for mode in MODES}
        nothing = await batch(connection, sql, 1, size=0)
        for explained in stale.values():
            for name, arguments in nothing.arguments().items():
                await explained.explain(name, arguments)  # a generic plan is kept from here on
        if rows:
            await fill(dsn, connection, rows)
        work = await batch(connection, sql, per_lease)
        for mode, explained in stale.items():
            await check(explained, work, mode, "prepared on empty tables")
        for state in ("never analyzed", "analyzed"):
            if state == "analyzed":
                await connection.execute("analyze")
            for mode in MODES:
                async with explainer(dsn, mode, sql) as explained:
                    await check(explained, work, mode, state)


async def test_statistics_of_single_job_leases(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    """Averages of one job a lease make a nested loop over a batch look cheap: leave.sql took 1.1 s for 2,000."""
    small = await batch(connection, sql, 1, size=1)
    await connection.execute("analyze")
    async with explainer(dsn, "pinned", sql) as explained:
        await check(explained, small, "pinned", "one job")
        await check(explained, await batch(connection, sql, 400), "pinned", "planned for one job")


@pytest.mark.timeout(100)
async def test_a_million_rows(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    """A million jobs ready and a million finished: about 20 s."""
    async with AsyncExitStack() as stack:
        stale = {mode: await stack.enter_async_context(explainer(dsn, mode, sql)) for mode in MODES}
        nothing = await batch(connection, sql, 1, size=0)
        for explained in stale.values():
            for name in HOT:
                await explained.explain(name, nothing.arguments()[name])
        await fill(dsn, connection, 1_000_000)
        work = await batch(connection, sql, 400)
        for mode, explained in stale.items():
            await check(explained, work, mode, "prepared on empty tables", HOT)
        for state in ("never analyzed", "analyzed"):
            if state == "analyzed":
                await connection.execute("analyze")
            for mode in MODES:
                async with explainer(dsn, mode, sql) as explained:
                    await check(explained, work, mode, state, HOT)


async def test_the_check_notices_a_bad_plan(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    await fill(dsn, connection, 4_000)
    work = await batch(connection, sql, 400)
    async with explainer(dsn, "generic", sql) as explained:
        for scan in ("indexscan", "indexonlyscan", "bitmapscan"):
            await explained.connection.execute(f"set enable_{scan} = off")
        for name in ("claim", "due", "expired_worker"):
            with pytest.raises(AssertionError):
                await check(explained, work, "pinned", "without indexes", {name})


async def test_the_check_notices_a_loop_over_two_lists(dsn: str, connection: asyncpg.Connection) -> None:
    planted = Statements()
    planted._rendered["unfinished"] = """select u.id from unnest($1::uuid[]) as u (id)
        where exists (select from unnest($1::uuid[]) as v (id) where v.id >= u.id offset 0)"""
    work = await batch(connection, planted, 400)
    async with explainer(dsn, "pinned", planted) as explained:
        with pytest.raises(AssertionError, match="rows in"):
            await check(explained, work, "pinned", "planted", {"unfinished"})
