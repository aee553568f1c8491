"""Random flows of every kind, with people and faults meddling while they run.

What becomes of each job cannot be told beforehand here; but every flow ends, its callbacks run as they should, and the
invariants hold. The settled are settled once more, workers are given up in the middle, and all verbs come at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import asyncpg

from flowrun import (
    Discard,
    Flow,
    FlowRun,
    Flowrun,
    FlowrunError,
    Job,
    Node,
    Retry,
    Snooze,
    any_of,
    at_least,
    backoff,
    race,
)
from flowrun.core.attempt import Success
from flowrun.store import settle
from flowrun.store.settle import Leases
from tests.model import invariants
from tests.model.arena import UNDER_WAY
from tests.model.quiet import quiet

PATIENCE = 40.0
"""Seconds that flows have to end after the last meddling: two leases of a worker that was given up, and some."""

STUCK = """
select j.id, j.kind, j.name, b.need, b.open, j.options,
    (select array_agg((p.name, e.condition, f.outcome)::text) from flowrun.edges e join flowrun.jobs p on p.id = e.parent_id
        left join flowrun.finished f on f.id = p.id where e.child_id = j.id) as parents,
    (select array_agg(verb) from flowrun.audit where flow_id = $1) as verbs
from flowrun.jobs j left join flowrun.blocked b on b.id = j.id
where (j.flow_id in (select id from flowrun.flows where root_id = $1) or j.id = $1)
and not exists (select from flowrun.finished where finished.id = j.id)
"""

CLEAR = """
truncate flowrun.flows, flowrun.jobs, flowrun.edges, flowrun.finished, flowrun.attempts, flowrun.audit,
    flowrun.signals, flowrun.steps, flowrun.progress, flowrun.cancels, flowrun.deadlines
"""
"""The tables would grow with every flow, and with them the time that each check takes."""

DOES = [
    *["well"] * 8,
    "fail",
    "flaky",
    "discard",
    "retry",
    "snooze",
    "spawn",
    "spawn",
    "dispatch",
    "transaction",
    "hang",
]


@dataclass
class Wild:
    """Two workers on one database, and what is done to them."""

    apps: list[Flowrun]
    connection: asyncpg.Connection
    done: dict[str, int] = field(default_factory=dict)
    """How often each kind of meddling came to something."""
    flows: int = 0

    async def play(self, random: Random, count: int) -> None:
        """Dispatch ``count`` flows, meddle, wait, check. AssertionError says what is wrong."""
        runs = [
            await wild_flow(random, self.apps[number % 2], random.randint(2, 14)).dispatch() for number in range(count)
        ]
        await asyncio.gather(*(self._meddle(random, run) for run in runs), self._disturb(random))
        for run in runs:
            await self._let_end(run)
        for run in runs:
            await self._check(run)
        await self._quiet()
        await invariants.check(self.connection)
        await self.connection.execute(CLEAR)
        self.flows += count

    async def _meddle(self, random: Random, run: FlowRun) -> None:
        for _ in range(random.choice([0, 1, 1, 2, 4])):
            await asyncio.sleep(random.choice([0.0, 0.002, 0.01, 0.05, 0.2]) * random.random())
            await self._verb(random, run)

    async def _verb(self, random: Random, run: FlowRun) -> None:
        names = list((await run.status()).nodes)
        name = random.choice(names)
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "cancel": lambda: run.cancel(compensate=random.random() < 0.7),
            "cancel node": lambda: run[name].cancel(),
            "retry": run.retry,
            "retry node": lambda: run[name].retry(),
            "resolve": lambda: run.resolve(name, {"n": 1}),
            "skip": lambda: run.skip(name),
            "signal": lambda: run.signal("go", random.choice(["yes", "no"])),
            "add": lambda: run.add(act(self.apps[0], "well"), after=random.choice([None, name])),
        }
        verb = random.choice(list(verbs))
        with contextlib.suppress(FlowrunError):
            if await verbs[verb]() not in (0, False, "too late"):
                self.done[verb] = self.done.get(verb, 0) + 1

    async def _disturb(self, random: Random) -> None:
        for _ in range(random.choice([0, 0, 1, 2])):
            await asyncio.sleep(random.random() * 0.2)
            if random.random() < 0.5:
                await self.connection.execute(
                    "update flowrun.workers set expires_at = now() - interval '1 hour'"
                    " where id = (select id from flowrun.workers order by random() limit 1)"
                )
            else:
                await self._settle_again()

    async def _settle_again(self) -> None:
        """What has ended is settled once more, by a worker that is none, and by the one that did."""
        rows = await self.connection.fetch("select id, attempt from flowrun.finished where attempt > 0 limit 20")
        workers = [row[0] for row in await self.connection.fetch("select id from flowrun.workers")]
        for worker in workers:
            successes = [Success(row["id"], 1, row["attempt"], '"late"') for row in rows]
            if successes:
                again = await settle.settle(
                    self.connection, self.apps[0].client.database.sql, worker_id=worker, successes=successes,
                    leases=Leases([1], []), handoff=0, handoff_lease=10**9, queues=[], types=[],
                )  # fmt: skip
                assert not again.ids, "what had ended was settled once more"

    async def _let_end(self, run: FlowRun) -> None:
        """Nothing may keep it but a gate without a time limit."""
        with contextlib.suppress(FlowrunError):
            await run.signal("go", "yes")
        try:
            await run.wait(timeout=PATIENCE)
        except TimeoutError:
            status = await run.status()
            stuck = {
                name: str(await run.explain(name)) for name, job in status.nodes.items() if job.finished_at is None
            }
            rows = await self.connection.fetch(STUCK, run.id)
            raise AssertionError(
                f"not ended: {await run.explain()}\n{stuck}\n{[tuple(map(str, row)) for row in rows]}"
            ) from None

    async def _check(self, run: FlowRun) -> None:
        state = (await run.status()).state
        wanted = {"finish"} | {"succeeded": {"success"}, "failed": {"failure"}}.get(state, set())
        for name in ("success", "failure", "finish"):
            if name in run._nodes:
                ended = await run[name].wait(timeout=PATIENCE)
                by_hand = ended.started_at is None and ended.state != "skipped" or "operator" in (ended.error or "")
                assert name not in wanted or ended.state == "succeeded" or by_hand, (
                    f"{name} of a flow that {state}: {ended}"
                )

    async def _quiet(self) -> None:
        for _ in range(int(PATIENCE * 100)):
            if not await self.connection.fetchval(UNDER_WAY):
                return
            await asyncio.sleep(0.01)


def act(app: Flowrun, do: str, pause: float = 0.0, given: Any = None, **options: Any) -> Any:
    return app.job("act", {"do": do, "pause": pause, "given": given}, **options)


def wild_flow(random: Random, app: Flowrun, size: int, *, inner: bool = False) -> Flow:
    """A flow of about ``size`` nodes of all kinds."""
    flow = app.flow("wild")
    nodes: list[Node[Any]] = []
    while len(nodes) < size:
        nodes.append(_node(random, app, flow, nodes, inner))
    if not inner:
        flow.on_success(act(app, "well"), name="success")
        flow.on_failure(act(app, "well"), name="failure")
        flow.on_finish(act(app, "well"), name="finish")
        if random.random() < 0.1:
            flow.deadline = random.choice([0.02, 0.2, 5.0])
    return flow


def _node(random: Random, app: Flowrun, flow: Flow, nodes: list[Node[Any]], inner: bool) -> Node[Any]:
    after: Any = _after(random, nodes) if nodes and random.random() < 0.85 else None
    kind = random.random()
    if kind < 0.06 and not inner:
        return flow.add(wild_flow(random, app, random.randint(1, 4), inner=True), after=after, optional=_some(random))
    if kind < 0.12:
        limit = random.choice([None, 0.005, 0.05])
        more = {"default": "no"} if random.random() < 0.5 else {}
        return flow.wait_for("go", after=after, timeout=limit, answers=["yes", "no"], **more)
    if kind < 0.16:
        return flow.sleep(random.choice([0.0, 0.01]), after=after)
    if kind < 0.24:
        over = random.choice([[], [1], ["well"] * 6, ["well", "fail", "hang", "well"]])
        source = flow.add(act(app, "well", given=over), after=after)
        on_error = random.choice(["finish", "cancel_siblings"])
        return flow.map(
            app.job("act", {}), source.result["given"], argument="do", optional=_some(random), on_error=on_error
        )
    job = act(
        app, random.choice(DOES), random.choice([0.0, 0.0, 0.003, 0.02]), attempts=2, backoff=backoff.constant(0.0)
    )
    undo = act(app, random.choice(["well", "well", "flaky", "fail"])) if random.random() < 0.15 else None
    return flow.add(job, after=after, optional=_some(random), cleanup=random.random() < 0.1, compensate=undo)


def _some(random: Random) -> bool | None:
    return True if random.random() < 0.15 else None


def _after(random: Random, nodes: list[Node[Any]]) -> Any:
    near = nodes[-5:]

    def one() -> Any:
        node = random.choice(near)
        draw = random.random()
        if draw < 0.1:
            return node.when("n", random.choice(["==", ">", "!="]), random.choice([0, 1]))
        return node.failed if draw < 0.2 else node.finished if draw < 0.4 else node

    whens = [one() for _ in range(random.choice([1, 1, 2, 3]))]
    with contextlib.suppress(FlowrunError):
        join = random.random()
        if join < 0.1:
            return [race(*random.sample(near, min(len(near), 3)))]
        if join < 0.25:
            return [any_of(*whens), *([one()] if random.random() < 0.3 else [])]
        if join < 0.35:
            return at_least(len(whens) // 2 + 1, *whens)
    return whens


def register(app: Flowrun) -> None:
    """The handler that plays every part."""
    snoozed: set[tuple[Any, str]] = set()

    @app.handler("act", attempts=2, backoff=backoff.constant(0.0))
    async def act_out(job: Job, do: str = "well", pause: float = 0.0, given: Any = None) -> Any:
        await asyncio.sleep(pause)
        if do == "fail" or (do == "flaky" and job.attempt == 1):
            raise ValueError("as written")
        if do == "discard":
            raise Discard("as written")
        if do == "retry" and job.attempt == 1:
            raise Retry(0.0)
        if do == "snooze" and (job.id, "snoozed") not in snoozed:
            snoozed.add((job.id, "snoozed"))
            raise Snooze(0.001)
        if do == "spawn" and job.flow_id is not None:
            first = job.spawn(act(app, "well"))
            job.spawn(act(app, "flaky", attempts=2), after=first, detached=job.id.int % 3 == 0)
        if do == "dispatch":
            await act(app, "well").dispatch()
        if do == "hang":
            await asyncio.sleep(0.3)
        if do == "transaction":
            async with job.transaction() as tx:
                await tx.complete({"n": 0, "given": given})
        return {"n": 1, "given": given}


@asynccontextmanager
async def wilderness(dsn: str) -> AsyncIterator[Wild]:
    """Two apps as two programs would be, on one database, with short leases."""
    with quiet():
        apps = [Flowrun(dsn, lease=1.0, poll=0.2), Flowrun(dsn, lease=1.0, poll=0.2)]
        connection = await asyncpg.connect(dsn)
        try:
            for app in apps:
                register(app)
            async with apps[0].worker(concurrency=20), apps[1].worker(concurrency=3):
                yield Wild(apps, connection)
        finally:
            await connection.close()
