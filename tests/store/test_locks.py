"""Who waits for whom, and what is true afterwards.

Each test holds one side's transaction open, waits until the other really blocks on a lock (pg_stat_activity says so),
then lets the first end: committed or rolled back. No sleeping and hoping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from flowrun import mint
from flowrun.core.states import Outcome
from flowrun.store import insert, upkeep
from flowrun.store.hold import Hold, HoldFirst
from flowrun.store.settle import Leases
from flowrun.store.statement import Statements
from tests.store.stage import (
    Worker,
    again,
    connections,
    failed,
    job_row,
    outcomes,
    places,
    plan_of,
    until_waiting,
)  # fmt: skip


class Scene:
    """A worker with one lease of two jobs, parents of one child; three connections."""

    def __init__(self, sql: Statements, one: Any, two: Any, watch: Any) -> None:
        self.sql, self.one, self.two, self.watch = sql, one, two, watch
        self.jobs: list[Any] = []
        self.child: UUID
        self.worker: Worker

    async def build(self) -> Scene:
        first, second, self.child = mint.flow_ids(3)[1]
        plan = plan_of(
            [job_row(id) for id in (first, second, self.child)], [(first, self.child, 2), (second, self.child, 2)]
        )
        await insert.insert_flow(self.watch, self.sql, plan)
        self.worker = await Worker(self.one, self.sql).register()
        self.jobs = await self.worker.claim()
        await self.watch.execute("update flowrun.workers set expires_at = '-infinity'")
        return self

    def on(self, connection: Any) -> Worker:
        self.worker.connection = connection
        return self.worker

    async def truth(self) -> None:
        """Every job in one place, and the child's counters as its parents' outcomes say."""
        ended = await outcomes(self.watch)
        for job in self.jobs:
            assert len(await places(self.watch, job.id)) == 1
        left = sum(job.id not in ended for job in self.jobs)
        row = await self.watch.fetchrow("select need, open from flowrun.blocked where id = $1", self.child)
        assert (tuple(row) if row else None) == ((left, left) if left else None)
        assert len(await places(self.watch, self.child)) == 1


Verb = Callable[[Scene, Any], Awaitable[Any]]


async def settle(scene: Scene, connection: Any) -> Any:
    return (await scene.on(connection).settle(scene.jobs[:1], leases=Leases([1], []), handoff=5)).ids


async def fail(scene: Scene, connection: Any) -> Any:
    return (await scene.on(connection).end([failed(scene.jobs[0])], Leases([1], []))).ids


async def retry(scene: Scene, connection: Any) -> Any:
    return (await scene.on(connection).end([again(scene.jobs[0])], Leases([1], []))).queues


async def rescue(scene: Scene, connection: Any) -> Any:
    return await upkeep.rescue_one(connection, scene.sql)


async def hand_back(scene: Scene, connection: Any) -> Any:
    return await upkeep.hand_back(connection, scene.sql, worker_id=scene.worker.id, leases=[1])


VERBS: dict[str, Verb] = {"settle": settle, "fail": fail, "retry": retry, "rescue": rescue, "hand_back": hand_back}


@pytest.fixture
async def scene(dsn: str, sql: Statements):
    async with connections(dsn, 3) as (one, two, watch):
        yield await Scene(sql, one, two, watch).build()


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
@pytest.mark.parametrize("second", VERBS)
@pytest.mark.parametrize("first", VERBS)
async def test_the_second_waits_and_sees_what_the_first_did(
    scene: Scene, first: str, second: str, commits: bool
) -> None:
    """On one worker's one lease: whoever comes second finds the job as the first left it."""
    transaction = scene.one.transaction()
    await transaction.start()
    assert await VERBS[first](scene, scene.one)
    waiting = asyncio.create_task(VERBS[second](scene, scene.two))
    if not (first == second == "rescue"):  # rescuers pass each other by
        await until_waiting(scene.watch, scene.two)
    else:
        assert await waiting is None
    await (transaction.commit() if commits else transaction.rollback())
    answer = await waiting
    await scene.truth()
    ended = await outcomes(scene.watch)
    done = scene.jobs[0].id
    if commits and first in ("settle", "fail"):
        assert ended[done] is (Outcome.SUCCEEDED if first == "settle" else Outcome.FAILED)
        if second in ("settle", "fail", "retry"):
            assert not answer
    elif commits and second in ("settle", "fail", "retry"):
        assert not answer  # the job has left its lease: late
        assert done not in ended
    elif not commits and second in ("settle", "fail"):
        assert answer == [done]
    used = await scene.watch.fetchval("select attempt from flowrun.ready where id = $1", done)
    if used is not None:
        last = second if not commits or first == "rescue" == second else first
        assert used == (0 if last == "hand_back" else 1)
    assert not scene.watch.is_closed()


# Two workers, one child


async def two_workers(scene: Scene) -> tuple[Worker, Any, Worker, Any]:
    """Another graph: two parents in two workers' leases, one child."""
    await scene.watch.execute("update flowrun.workers set expires_at = 'infinity'")
    await scene.watch.execute("delete from flowrun.blocked")
    first, second, scene.child = mint.flow_ids(3)[1]
    edges = [(first, scene.child, 2), (second, scene.child, 2)]
    await insert.insert_flow(scene.watch, scene.sql, plan_of(list(map(job_row, (first, second, scene.child))), edges))
    one, two = await Worker(scene.one, scene.sql).register(), await Worker(scene.two, scene.sql).register()
    (mine,), (theirs,) = await one.claim(1), await two.claim(1)
    scene.jobs = [mine, theirs]
    return one, mine, two, theirs


async def succeed_by(worker: Worker, job: Any) -> Any:
    return await worker.settle([job])


async def fail_by(worker: Worker, job: Any) -> Any:
    return await worker.end([failed(job)])


WAYS = {"settle": succeed_by, "fail": fail_by}


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
async def test_two_workers_meet_at_a_child(scene: Scene, first: str, second: str, commits: bool) -> None:
    """The last one releases it, reading the counter that the first one left, not the one it saw before it waited."""
    one, mine, two, theirs = await two_workers(scene)
    transaction = scene.one.transaction()
    await transaction.start()
    settled = await WAYS[first](one, mine)
    assert not settled.queues
    waiting = asyncio.create_task(WAYS[second](two, theirs))
    await until_waiting(scene.watch, scene.two)
    await (transaction.commit() if commits else transaction.rollback())
    assert (await waiting).queues == ({"default"} if commits else set())
    await scene.truth()
    if not commits:
        assert (await WAYS[first](one, mine)).queues == {"default"}
        await scene.truth()


async def test_the_child_was_released_meanwhile(scene: Scene) -> None:
    """any_of: both decide it; the second finds the row gone and does nothing."""
    await scene.watch.execute("update flowrun.workers set expires_at = 'infinity'")
    await scene.watch.execute("delete from flowrun.blocked")
    first, second, child = mint.flow_ids(3)[1]
    edges = [(first, child, 0), (second, child, 0)]
    await insert.insert_flow(
        scene.watch, scene.sql, plan_of(list(map(job_row, (first, second, child))), edges, {child: 1})
    )
    one, two = await Worker(scene.one, scene.sql).register(), await Worker(scene.two, scene.sql).register()
    (mine,), (theirs,) = await one.claim(1), await two.claim(1)
    transaction = scene.one.transaction()
    await transaction.start()
    assert (await one.settle([mine])).queues == {"default"}
    waiting = asyncio.create_task(two.settle([theirs], handoff=5))
    await until_waiting(scene.watch, scene.two)
    await transaction.commit()
    settled = await waiting
    assert (settled.ids, settled.handoff, settled.queues) == ([theirs.id], [], set())
    assert await places(scene.watch, child) == ["ready"]


@pytest.mark.parametrize("reverse", [False, True])
async def test_two_failures_whose_graphs_overlap(dsn: str, sql: Statements, reverse: bool) -> None:
    """Both skip into the same part of the graph; each edge is counted by the one whose job it leaves."""
    async with connections(dsn, 3) as (one, two, watch):
        # a -> c -> e -> f(finished), b -> d -> e, b -> g
        a, b, c, d, e, f, g = ids = list(mint.flow_ids(7)[1])
        edges = [(a, c, 0), (b, d, 0), (c, e, 2), (d, e, 2), (e, f, 2), (b, g, 1)]
        await insert.insert_flow(watch, sql, plan_of(list(map(job_row, ids)), edges))
        first, second = await Worker(one, sql).register(), await Worker(two, sql).register()
        (x,), (y,) = await first.claim(1), await second.claim(1)
        workers = [(first, x), (second, y)]
        if reverse:
            workers.reverse()
        (before, job), (after, late) = workers
        transaction = before.connection.transaction()
        await transaction.start()
        assert len((await before.end([failed(job)])).ids) == 2
        waiting = asyncio.create_task(after.end([failed(late)]))
        await until_waiting(watch, after.connection)
        await transaction.commit()
        assert (await waiting).queues == {"default"}
        assert await outcomes(watch) == {
            a: Outcome.FAILED, b: Outcome.FAILED, c: Outcome.SKIPPED, d: Outcome.SKIPPED,
        }  # fmt: skip
        assert [(await places(watch, id))[0] for id in (e, f, g)] == ["ready", "blocked", "ready"]


@pytest.mark.parametrize("hands_over", [True, False])
async def test_a_worker_given_up_while_it_settles(scene: Scene, hands_over: bool) -> None:
    """What its settle takes over while the rescue waits is rescued too."""
    transaction = scene.one.transaction()
    await transaction.start()
    settled = await scene.worker.settle(scene.jobs, handoff=5 if hands_over else 0)
    waiting = asyncio.create_task(rescue(scene, scene.two))
    await until_waiting(scene.watch, scene.two)
    await transaction.commit()
    assert (await waiting).jobs == 0
    assert len(settled.handoff) == hands_over
    following = await rescue(scene, scene.two)
    assert (following is not None) == hands_over
    assert await places(scene.watch, scene.child) == ["ready"]
    assert await scene.watch.fetchval("select count(*) from flowrun.leases") == 0


async def test_a_claim_that_commits_while_its_worker_is_given_up(scene: Scene) -> None:
    lonely = job_row()
    await insert.insert_jobs(scene.watch, scene.sql, [lonely])
    transaction = scene.one.transaction()
    await transaction.start()
    assert [job.id for job in await scene.worker.claim()] == [lonely.id]
    assert (await rescue(scene, scene.two)).jobs == 2
    await transaction.commit()
    assert (await rescue(scene, scene.two)).jobs == 1
    assert await places(scene.watch, lonely.id) == ["ready"]
    assert await rescue(scene, scene.two) is None


async def test_a_beat_waits_for_the_rescue_and_learns_of_it(scene: Scene) -> None:
    transaction = scene.one.transaction()
    await transaction.start()
    await rescue(scene, scene.one)
    waiting = asyncio.create_task(upkeep.beat(scene.two, scene.sql, worker_id=scene.worker.id, lease=60.0))
    await until_waiting(scene.watch, scene.two)
    await transaction.commit()
    assert await waiting is None


async def test_a_beat_that_comes_first_saves_the_worker(scene: Scene) -> None:
    transaction = scene.one.transaction()
    await transaction.start()
    assert await upkeep.beat(scene.one, scene.sql, worker_id=scene.worker.id, lease=60.0) is not None
    assert await rescue(scene, scene.two) is None  # passes by
    await transaction.commit()
    assert await rescue(scene, scene.two) is None
    assert len(await outcomes(scene.watch)) == 0


async def test_beats_of_others_are_not_held_up_by_a_rescue(scene: Scene) -> None:
    other = await Worker(scene.two, scene.sql).register()
    transaction = scene.one.transaction()
    await transaction.start()
    await rescue(scene, scene.one)
    assert await upkeep.beat(scene.two, scene.sql, worker_id=other.id, lease=60.0) is not None
    await transaction.commit()


async def test_children_are_locked_in_the_order_of_their_ids(dsn: str, sql: Statements) -> None:
    """A settle that cannot have the middle child has the ones before it, and none behind."""
    async with connections(dsn, 3) as (one, two, watch):
        parent, *children = mint.flow_ids(6)[1]
        edges = [(parent, child, 0) for child in reversed(children)]
        await insert.insert_flow(watch, sql, plan_of(list(map(job_row, (parent, *children))), edges))
        for way in WAYS.values():
            worker = await Worker(two, sql).register()
            (job,) = await worker.claim()
            transaction = one.transaction()
            await transaction.start()
            await one.execute("select from flowrun.blocked where id = $1 for update", children[2])
            waiting = asyncio.create_task(way(worker, job))
            await until_waiting(watch, two)
            free = await watch.fetch("select id from flowrun.blocked order by id for update skip locked")
            assert [row[0] for row in free] == children[3:]
            two_pid = two.get_server_pid()
            await watch.execute("select pg_cancel_backend($1)", two_pid)
            with pytest.raises(asyncpg.QueryCanceledError):
                await waiting
            await transaction.rollback()
            await upkeep.hand_back(watch, sql, worker_id=worker.id, leases=None)


JOINS = ("hashjoin", "mergejoin", "nestloop")


@pytest.mark.parametrize("way", JOINS)
@pytest.mark.parametrize("wanted", ["a counter", "a job"])
async def test_own_leases_come_before_counters(scene: Scene, wanted: str, way: str) -> None:
    """A settle that holds what others may have holds its own leases before it waits for a counter, however they are
    found: also where no job that it wants stands in a lease, and where it begins anew for nothing but a counter."""
    hold = Hold() if wanted == "a job" else Hold().learn(HoldFirst([], [scene.child]))
    counter = scene.watch.transaction()
    await counter.start()
    await scene.watch.execute("select from flowrun.blocked where id = $1 for update", scene.child)
    transaction = scene.two.transaction()
    await transaction.start()
    for other in {*JOINS, "indexscan", "bitmapscan", "material"} - {way}:
        await scene.two.execute(f"set local enable_{other} = off")
    ids = [scene.child] if wanted == "a job" else []
    waiting = asyncio.create_task(hold.jobs(scene.two, scene.sql, ids, own=(scene.worker.id, [1])))
    await until_waiting(scene.watch, scene.two)
    free = await scene.watch.fetch("select n from flowrun.leases for update skip locked")
    await counter.rollback()
    await waiting
    await transaction.rollback()
    assert free == []
