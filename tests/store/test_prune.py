"""What is removed while somebody does something with it: one of the two comes first, and the other sees that.

Each test holds one side's transaction open and looks what the other does: what removes never waits, what comes to use a
thing waits for the one who removes it, and finds it gone, or there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any
from uuid import UUID

import pytest

from flowrun import Flowrun, NotFound, NotPossible, mint
from flowrun.core.plan import KeyRow
from flowrun.core.states import Outcome
from flowrun.store import control, keys, prune
from flowrun.store.bulk import By
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.edits import Edit
from flowrun.store.finish import Settled
from flowrun.store.prune import Filter
from flowrun.store.statement import Statements
from tests.model import invariants
from tests.store.plans import MODES, explainer
from tests.store.stage import connections, deadlocks, until_waiting

EVERYTHING = Filter(older_than=0.0)


class Scene:
    """A job and a flow that failed, both with the key "k"; three connections."""

    def __init__(self, app: Flowrun, sql: Statements, one: Any, two: Any, watch: Any) -> None:
        self.app, self.sql, self.one, self.two, self.watch = app, sql, one, two, watch
        self.job: UUID
        self.flow: UUID
        self.node: UUID

    async def build(self) -> Scene:
        async with self.app.worker(concurrency=2):
            job = await self.app.job("broken", key="k").dispatch()
            flow = self.app.flow("order", key="k")
            flow.add(self.app.job("broken"), name="node")
            flow.add(self.app.job("broken"), after=flow.nodes[0], name="child")
            run = await flow.dispatch()
            await job.wait(timeout=20)
            await run.wait(timeout=20)
        self.job, self.flow, self.node = job.id, run.id, run["node"].id
        return self

    async def prune(self, connection: Any) -> list[UUID]:
        removed = (await prune.sweep(connection, self.sql, UUID(int=0), EVERYTHING)).removed
        return [*removed.jobs, *removed.flows]

    async def stored(self) -> set[UUID]:
        wanted = [self.job, self.flow]
        return {row[0] for row in await self.watch.fetch("select id from flowrun.jobs where id = any($1)", wanted)}


Verb = Callable[[Scene, Any], Awaitable[Any]]


async def retry_job(scene: Scene, connection: Any) -> Any:
    await control.retry_job(connection, scene.sql, scene.job, Edit('{"n": 1}'), By(), Settled())


async def retry_flow(scene: Scene, connection: Any) -> Any:
    assert await control.retry(connection, scene.sql, scene.flow, {}, By(), Settled()) == 1


async def retry_node(scene: Scene, connection: Any) -> Any:
    await control.retry_job(connection, scene.sql, scene.node, None, By(), Settled())


async def resolve_job(scene: Scene, connection: Any) -> Any:
    await control.decide(connection, scene.sql, scene.job, Outcome.SUCCEEDED, "1", By(), Settled())


async def skip_node(scene: Scene, connection: Any) -> Any:
    await control.decide(connection, scene.sql, scene.node, Outcome.SKIPPED, None, By(), Settled())


VERBS: dict[str, tuple[Verb, str]] = {
    "retry_job": (retry_job, "job"),
    "retry_flow": (retry_flow, "flow"),
    "retry_node": (retry_node, "flow"),
    "resolve_job": (resolve_job, "job"),
    "skip_node": (skip_node, "flow"),
}


@pytest.fixture
async def scene(app: Flowrun, dsn: str, sql: Statements):
    @app.handler("broken", attempts=1)
    async def broken(n: int = 0) -> None:
        raise ValueError("broke")

    async with connections(dsn, 3) as (one, two, watch):
        yield await Scene(app, sql, one, two, watch).build()
        await invariants.check(watch, at_rest=False)


@pytest.mark.parametrize("name", VERBS)
async def test_who_removes_passes_by_what_somebody_holds(scene: Scene, name: str) -> None:
    verb, what = VERBS[name]
    held, other = (scene.job, scene.flow) if what == "job" else (scene.flow, scene.job)
    for commits in (False, True):
        transaction = scene.one.transaction()
        await transaction.start()
        await verb(scene, scene.one)
        assert held not in await scene.prune(scene.two)
        await (transaction.commit() if commits else transaction.rollback())
        assert held in await scene.stored()
    assert other not in await scene.stored()
    # What was resolved has ended again; all others are open now.
    assert await scene.prune(scene.two) == ([held] if name == "resolve_job" else [])


@pytest.mark.parametrize("name", VERBS)
async def test_who_comes_to_use_it_waits_and_finds_it_gone_or_there(scene: Scene, name: str) -> None:
    verb, _ = VERBS[name]
    for commits in (False, True):
        transaction = scene.one.transaction()
        await transaction.start()
        assert set(await scene.prune(scene.one)) == {scene.job, scene.flow}
        waiting = asyncio.create_task(verb(scene, scene.two))
        await until_waiting(scene.watch, scene.two)
        if commits:
            await transaction.commit()
            with pytest.raises(NotFound):
                await waiting
        else:
            await transaction.rollback()
            await waiting
            # Back to where it was.
            async with scene.app.worker(concurrency=1):
                for id in (scene.job, scene.flow):
                    await scene.app.client.waits.wait(id, 20)
            await scene.watch.execute("delete from flowrun.audit")
    assert await scene.stored() == set()
    for table in ("jobs", "ready", "audit", "keys", "attempts", "edges"):
        assert await scene.watch.fetchval(f"select count(*) from flowrun.{table}") == 0, table


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
async def test_a_dispatch_with_the_key_of_what_is_being_removed(scene: Scene, commits: bool) -> None:
    transaction = scene.one.transaction()
    await transaction.start()
    await scene.prune(scene.one)
    async with scene.app:
        waiting = asyncio.create_task(scene.app.job("broken", key="k").dispatch())
        while not await scene.watch.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
            assert not waiting.done()
        await (transaction.commit() if commits else transaction.rollback())
        run = await waiting
    assert (run.duplicate, run.id == scene.job) == ((False, False) if commits else (True, True))


async def test_a_key_that_is_about_to_be_taken_over_keeps_what_has_it(scene: Scene) -> None:
    """Its lock is never waited for: who holds one key may wait for another."""
    transaction = scene.one.transaction()
    await transaction.start()
    caller = AsyncpgCaller(scene.one, nullcontext)
    wanted = KeyRow("job:broken", "k", mint.job_id(), "debounce", None)
    assert await keys.take(caller, scene.sql, [wanted]) == {}
    assert await scene.prune(scene.two) == [scene.flow]
    await transaction.commit()
    assert await scene.prune(scene.two) == [scene.job]
    assert await scene.watch.fetchval("select id from flowrun.keys") == wanted.id
    await scene.watch.execute("delete from flowrun.keys")


async def test_of_two_who_retry_a_job_one_does(scene: Scene) -> None:
    transaction = scene.one.transaction()
    await transaction.start()
    await retry_job(scene, scene.one)
    waiting = asyncio.create_task(retry_job(scene, scene.two))
    await until_waiting(scene.watch, scene.two)
    await transaction.commit()
    with pytest.raises(NotPossible):
        await waiting
    assert await scene.watch.fetchval("select count(*) from flowrun.ready where id = $1", scene.job) == 1


async def test_a_job_whose_place_in_a_lease_is_not_cleared_stays(scene: Scene) -> None:
    """A rescue takes for unfinished what has no outcome."""
    worker = mint.job_id()
    await scene.watch.execute(
        "insert into flowrun.workers (id, name, queues, concurrency, expires_at) values ($1, 'w', '{}', 1, 'infinity')",
        worker,
    )
    await scene.watch.execute(
        "insert into flowrun.leases (worker_id, n, jobs, attempts) values ($1, 1, $2, '{1,1}')",
        worker,
        [scene.job, scene.node],
    )
    assert await scene.prune(scene.one) == []
    await scene.watch.execute("update flowrun.leases set jobs = '{}', attempts = '{}'")
    assert set(await scene.prune(scene.one)) == {scene.job, scene.flow}


async def test_workers_take_turns(scene: Scene) -> None:
    await scene.watch.execute("update flowrun.retention set seconds = 0")
    transaction = scene.one.transaction()
    await transaction.start()
    own = await prune.step(scene.one, scene.sql)
    assert own is not None
    assert await prune.step(scene.two, scene.sql) is None
    await transaction.commit()
    removed: list[UUID] = []
    for _ in range(4):
        await scene.watch.execute("update flowrun.pruning set due_at = now() where due_at < now() + interval '4 s'")
        step = await prune.step(scene.two, scene.sql)
        if step is not None:
            removed += [*step.removed.jobs, *step.removed.flows]
    assert set(removed) == {scene.job, scene.flow}
    assert await scene.watch.fetchval("select due_at > now() + interval '4 s' and own from flowrun.pruning")


async def test_in_steps_of_bounded_size(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "LOOK", 7)
    monkeypatch.setattr(prune, "MOST", 4)
    await scene.prune(scene.two)
    await scene.watch.execute(
        """with new as (
            insert into flowrun.jobs (id, queue, type, args)
            select ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'default', 'broken', '{}'
            from generate_series(1, 40) n returning id
        )
        insert into flowrun.finished (id, outcome, attempt, started_at)
        select id, 1, 1, now() from new"""
    )
    mark: UUID | None = UUID(int=0)
    sizes = []
    while mark is not None:
        swept = await prune.sweep(scene.one, scene.sql, mark, EVERYTHING)
        sizes.append(len(swept.removed.jobs))
        mark = swept.mark
    assert (sum(sizes), max(sizes)) == (40, 4)


async def test_a_pass_that_lags_behind_removes_more_and_does_not_rest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "LOOK", 7)
    monkeypatch.setattr(prune, "LOOK_BEHIND", 20)
    monkeypatch.setattr(prune, "MOST", 4)
    await scene.prune(scene.two)
    await scene.watch.execute("update flowrun.retention set seconds = 0")
    now = int(await scene.watch.fetchval("select extract(epoch from now()) * 1000"))
    ids = [UUID(int=((now - 1_000 * (60 - second)) << 80) | 0x7000_8000_0000_0000_0000) for second in range(60)]
    await scene.watch.execute(
        "insert into flowrun.jobs (id, queue, type, args) select id, 'default', 'x', '{}' from unnest($1::uuid[]) id",
        ids,
    )
    await scene.watch.execute(
        "insert into flowrun.finished (id, outcome, attempt) select id, 1, 1 from unnest($1::uuid[]) id", ids
    )
    steps = []
    while sum(size for size, _ in steps) < 60:
        await scene.watch.execute("update flowrun.pruning set due_at = now()")
        step = await prune.step(scene.one, scene.sql)
        assert step is not None
        steps.append((len(step.removed.jobs), step.pause > 0.0))
    own, *others = steps
    assert own == (0, True)  # those with a retention of their own
    assert others == [(4, False), (20, False), (20, False), (16, True)]


async def test_all_at_once(scene: Scene, dsn: str) -> None:
    """Two who remove, two who retry, two who dispatch with the same keys, workers that fail: nobody is deadlocked."""
    app, dice = scene.app, random.Random(7)
    stop = asyncio.Event()

    async def pruning() -> None:
        while not stop.is_set():
            await app.prune(older_than=0.0)

    async def retrying() -> None:
        while not stop.is_set():
            ids = [job.id for job in await app.failed.list(limit=20)]
            if dice.random() < 0.5:
                await app.jobs.retry(type="broken")
            for id in ids:
                with suppress(NotFound, NotPossible):
                    await app.failed.retry(id, args={"n": 2})

    async def dispatching() -> None:
        for _ in range(20):
            names = dice.sample([f"k{n}" for n in range(12)], 6)
            await app.dispatch_many([app.job("broken", key=name) for name in names])
            # One at a time: dispatches that replace several may deadlock each other, and are sent again.
            await app.job("broken", key=names[0], on_conflict="replace").dispatch()
            await app.job("broken", debounce=(names[1], 0.001)).dispatch()
            flow = app.flow("order", key=dice.choice(names))
            flow.chain(app.job("broken"), app.job("broken"))
            await flow.dispatch()

    async with app.worker(concurrency=4):
        loops = [asyncio.create_task(loop()) for loop in (pruning, pruning, retrying, retrying)]
        await asyncio.gather(dispatching(), dispatching())
        stop.set()
        await asyncio.gather(*loops)
    await invariants.check(scene.watch, at_rest=False)
    for one in (scene.one, scene.two):
        await one.close()
    assert await deadlocks(dsn, scene.watch) == 0


FILL = """
with new as (
    insert into flowrun.jobs (id, queue, type, args, created_at)
    select ('0190' || lpad(to_hex(i), 28, '0'))::uuid, 'other', 'step', '{}', 'epoch' from generate_series(1, $1) i
    returning id
)
insert into flowrun.finished (id, outcome, attempt, started_at) select id, 1, 1, now() from new
"""


async def test_plans(scene: Scene, dsn: str) -> None:
    """No step reads more of a table than what it looks at, whatever the statistics say."""
    await scene.prune(scene.one)
    jobs = [mint.job_id() for _ in range(3)]
    await scene.watch.execute(FILL, 20_000)
    await scene.watch.execute(
        "insert into flowrun.keys (scope, key, id) select 'x', n::text, gen_random_uuid() from generate_series(1, 20000) n"
    )
    ids = [row[0] for row in await scene.watch.fetch("select id from flowrun.jobs order by id limit 1000")]
    times = [
        row[0] for row in await scene.watch.fetch("select finished_at from flowrun.finished where id = any($1)", ids)
    ]
    arguments: dict[str, list[Any]] = {
        "look": [ids[0], ids[-1], 1000],
        "look_own": [ids[0], ids[-1], 1000],
        "expired": [ids, 0.0, *[None] * 8],
        "hold_expired": [ids, times],
        "hold_flows": [jobs],
        "closed_flows": [jobs, None],
        "hold_keys": [ids],
        "remove": [ids, jobs],
        "expired_keys": [1000],
    }
    pinned = {
        "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off", "enable_mergejoin": "off",
        "jit": "off",
    }  # fmt: skip
    for analyzed in (False, True):
        if analyzed:
            await scene.watch.execute("analyze")
        for mode in MODES:
            async with explainer(dsn, mode, scene.sql) as explained:
                for name, value in pinned.items():
                    await explained.connection.execute(f"set {name} = {value}")
                for name, given in arguments.items():
                    plan = await explained.explain(name, given)
                    big = {"jobs", "finished", "keys", "edges", "attempts"}
                    assert not plan.scanned() & big, (name, mode, plan.worst())
                    assert plan.effort() <= 3000, (name, mode, plan.worst())
    await scene.watch.execute("truncate flowrun.jobs, flowrun.finished, flowrun.keys")
