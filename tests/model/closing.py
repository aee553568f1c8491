"""Random flows that are undone when they fail, and what operators do right where they end.

A verb comes when the last handler returns, between the end of the last node and the end of the flow, while compensations
run, and after the end; often two at once, from two clients. Whatever they come to: a flow is what its jobs are, who was
charged and whose flow did not succeed is refunded, nothing goes on after the end, and what was added was waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pprint import pformat
from random import Random
from typing import Any

import asyncpg

from flowrun import Flow, FlowRun, Flowrun, FlowrunError, FlowStatus, Job, Node, any_of, backoff, race
from tests.model import invariants
from tests.model.arena import UNDER_WAY
from tests.model.quiet import quiet
from tests.model.wild import CLEAR

PATIENCE = 40.0
"""Seconds that flows have to end after the last verb."""
HARMLESS = ("another won the race", "another item of the map failed")

LEFT = """
select 'cancels' as place, c.id from flowrun.cancels c join flowrun.finished f on f.id = c.id
union all select 'gates', g.id from flowrun.gates g join flowrun.finished f on f.id = g.id
union all select 'deadlines', d.id from flowrun.deadlines d join flowrun.finished f on f.id = d.id where d.due_at < now()
union all select 'slots', s.worker_id from flowrun.slots s
    where not exists (select from flowrun.leases l where l.worker_id = s.worker_id and l.n = s.n)
"""


@dataclass
class Played:
    """What is known of one flow besides what is stored."""

    app: Flowrun
    run: FlowRun | None = None
    returned: asyncio.Event = field(default_factory=asyncio.Event)
    """A handler of it is just returning."""
    undoing: asyncio.Event = field(default_factory=asyncio.Event)
    """A compensation of it runs."""
    journal: list[tuple[str, str]] = field(default_factory=list)
    """What its handlers did, in order: "begins", "ends" or "undoes", and the node."""
    verbs: list[str] = field(default_factory=list)
    """What was done to it, and what that came to."""
    added: list[str] = field(default_factory=list)
    racing: set[str] = field(default_factory=set)
    """The flows inside that may lose a race."""
    left_out: bool = False
    """Somebody said that it, or some of it, is not to be undone, or has undone some of it by hand."""


@dataclass
class Closing:
    """Two workers on one database, and what is done to the flows they run."""

    apps: list[Flowrun]
    connection: asyncpg.Connection
    played: dict[int, Played] = field(default_factory=dict)
    """By the number that is among its jobs' arguments."""
    done: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often each verb came to something."""
    flows: int = 0

    async def play(self, random: Random, count: int) -> None:
        """Dispatch ``count`` flows, do things to them, wait, check. AssertionError says what is wrong."""
        self.played = {number: Played(self.apps[number % 2]) for number in range(count)}
        games = list(self.played.values())
        for number, game in self.played.items():
            flow = _flow(random, game.app, number)
            game.racing = {node.name for node in flow.nodes if node.inner is not None}
            game.run = await flow.dispatch()
        await asyncio.gather(*(self._meddle(random, game) for game in games))
        for game in games:
            await self._let_end(game)
        await self._quiet()
        for game in games:
            await self._check(game)
        await invariants.check(self.connection)
        left = await self.connection.fetch(LEFT)
        assert not left, f"rows are left of what has ended: {[tuple(map(str, row)) for row in left]}"
        await self.connection.execute(CLEAR)
        self.flows += count

    async def _meddle(self, random: Random, game: Played) -> None:
        for _ in range(random.choice([0, 1, 1, 2, 3, 4])):
            await self._moment(random, game)
            at_once = random.choice([1, 1, 2])
            await asyncio.gather(*(self._verb(random, game) for _ in range(at_once)))

    async def _moment(self, random: Random, game: Played) -> None:
        """Until just now something is about to end."""
        with contextlib.suppress(TimeoutError):
            kind = random.random()
            if kind < 0.6:
                game.returned.clear()
                await asyncio.wait_for(game.returned.wait(), 0.2)
            elif kind < 0.8:
                await asyncio.wait_for(game.undoing.wait(), 0.2)
            elif kind < 0.9 and game.run is not None:
                await game.run.wait(timeout=0.3)
        await asyncio.sleep(random.choice([0.0, 0.001, 0.002, 0.004, 0.01, 0.03]) * random.random())

    async def _verb(self, random: Random, game: Played) -> None:
        app = random.choice(self.apps)
        number = next(number for number, one in self.played.items() if one is game)
        assert game.run is not None
        run = await app.get_flow(game.run.id)
        names = list((await run.status()).nodes)
        name = random.choice(names)
        compensate = random.random() < 0.75
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "cancel": lambda: run.cancel(compensate=compensate),
            "cancel again": lambda: run.cancel(compensate=compensate),
            "cancel node": lambda: run[name].cancel(),
            "retry": run.retry,
            "retry again": run.retry,
            "retry node": lambda: run[name].retry(),
            "resolve": lambda: run.resolve(name, 1),
            "skip": lambda: run.skip(name),
            "signal": lambda: run.signal("go", "yes"),
            "add": lambda: run.add(
                act(app, number, random.choice(["well", "fail", "slow"])), after=random.choice([None, name])
            ),
        }
        verb = random.choice(list(verbs))
        said = f"{verb} {name}{'' if compensate else ', not compensated'}"
        game.verbs.append(f"{said} ...")
        if (verb.startswith("cancel") and not compensate) or (
            verb in ("cancel node", "skip", "resolve") and "undo" in name
        ):
            game.left_out = True
        try:
            answer = await verbs[verb]()
        except FlowrunError as error:
            game.verbs.append(f"{said}: {str(error)[:60]}")
            return
        game.verbs.append(f"{said}: {answer}")
        if answer not in (0, False, "too late"):
            self.done[verb] += 1
        if verb == "add":
            status = await run.status()
            game.added += [one for one, job in status.nodes.items() if job.id == answer.id]

    async def _let_end(self, game: Played) -> None:
        assert game.run is not None
        with contextlib.suppress(FlowrunError):
            await game.run.signal("go", "yes")
        try:
            await game.run.wait(timeout=PATIENCE)
        except TimeoutError:
            status = await game.run.status()
            stuck = {
                name: str(await game.run.explain(name)) for name, job in status.nodes.items() if job.finished_at is None
            }
            raise AssertionError(f"not ended: {await game.run.explain()}\n{pformat(stuck)}\n{_told(game)}") from None

    async def _check(self, game: Played) -> None:
        assert game.run is not None
        status = await game.run.status()
        problems = [
            *_verdict(status, game.racing),
            *_refunds(game, status),
            *_after_the_end(game, status),
            *_order(game),
        ]
        if problems:
            states = {name: (job.state, job.error, job.attempt) for name, job in status.nodes.items()}
            raise AssertionError("\n".join([*problems, status.state, pformat(states, width=160), _told(game)]))

    async def _quiet(self) -> None:
        for _ in range(int(PATIENCE * 100)):
            if not await self.connection.fetchval(UNDER_WAY):
                return
            await asyncio.sleep(0.01)


# -- what must be so -----------------------------------------------------------------------------------------------------


def is_callback(name: str) -> bool:
    return name in ("success", "failure", "finish")


def _verdict(status: FlowStatus, racing: set[str]) -> list[str]:
    own: list[tuple[str, bool]] = []
    inside: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    lost = set()
    for name, job in status.nodes.items():
        inner, _, last = name.rpartition("/")
        undoes = last.startswith("undo ")
        if job.state == "cancelled" and (undoes or job.error in HARMLESS):
            lost |= {inner} & racing if not undoes else set()
        elif not is_callback(name):
            # What undoes a node of an inner flow is the outermost flow's affair.
            (own if undoes or not inner else inside[inner]).append((job.state, job.optional))
    without = list(own)
    for inner, jobs in inside.items():
        own.append((_came_to(jobs), inner.startswith("optional")))
        if inner not in lost:
            without.append(own[-1])
    # Whether the flow around it lost the race, or one in it lost one there, the jobs do not tell.
    right = {_came_to(own), _came_to(without)}
    return [] if status.state in right else [f"the flow {status.state}, its jobs say {' or '.join(right)}"]


def _came_to(jobs: list[tuple[str, bool]]) -> str:
    if ("failed", False) in jobs:
        return "failed"
    return "cancelled" if any(state == "cancelled" for state, _ in jobs) else "succeeded"


def _refunds(game: Played, status: FlowStatus) -> list[str]:
    problems = []
    undone = {node for what, node in game.journal if what == "undoes"}
    if status.state == "succeeded" and undone:
        problems.append(f"{undone} were undone in a flow that succeeded")
    for name, job in status.nodes.items():
        inner, _, last = name.rpartition("/")
        if not last.startswith("undo "):
            continue
        node = status.nodes[f"{inner}/{last.removeprefix('undo ')}" if inner else last.removeprefix("undo ")]
        due = node.state == "succeeded" and status.state in ("failed", "cancelled")
        if due and not game.left_out and job.state not in ("succeeded", "failed"):
            problems.append(f"{node.name} succeeded, its flow {status.state}, and {name} was {job.state}")
        if not due and job.state == "succeeded" and not game.left_out:
            problems.append(f"{name} {job.state}, though {node.name} {node.state} and its flow {status.state}")
    return problems


def _after_the_end(game: Played, status: FlowStatus) -> list[str]:
    ended = status.finished_at
    assert ended is not None
    problems = []
    for name, job in status.nodes.items():
        if job.finished_at is None:
            problems.append(f"{name} is {job.state} when all is over")
        elif job.finished_at > ended and not is_callback(name):
            problems.append(f"{name} ended after its flow")
    for name in game.added:
        if name not in status.nodes:
            problems.append(f"{name} was added and is not there")
    return problems


def _order(game: Played) -> list[str]:
    """Nothing of a flow runs while it is undone."""
    first = next((at for at, (what, _) in enumerate(game.journal) if what == "undoes"), None)
    if first is None:
        return []
    return [f"{node} {what} while the flow is undone" for what, node in game.journal[first:] if what != "undoes"]


def _told(game: Played) -> str:
    return "\n".join([*game.verbs, *(f"{node} {what}" for what, node in game.journal)])


# -- flows ---------------------------------------------------------------------------------------------------------------


def act(app: Flowrun, game: int, do: str) -> Any:
    return app.job("act", {"game": game, "do": do}, attempts=2, backoff=backoff.constant(0.0))


def _flow(random: Random, app: Flowrun, game: int, *, inner: bool = False) -> Flow:
    flow = app.flow("closing")
    nodes: list[Node[Any]] = []
    for number in range(random.choice([1, 1, 2, 3, 5])):
        after = _after(random, nodes)
        kind = random.random()
        if kind < 0.12 and not inner:
            optional = random.random() < 0.2
            name = f"{'optional' if optional else 'inner'} {number}"
            nodes.append(flow.add(_flow(random, app, game, inner=True), after=after, name=name, optional=optional))
        elif kind < 0.2:
            nodes.append(flow.wait_for("go", after=after, name=f"gate {number}", timeout=random.choice([None, 0.01])))
        elif kind < 0.26:
            nodes.append(flow.sleep(random.choice([0.0, 0.01, 0.05]), after=after, name=f"sleep {number}"))
        else:
            do = random.choice(["well", "well", "well", "fail", "slow", "spawn", "cancel", "stubborn"])
            node = flow.add(
                act(app, game, do), after=after, name=f"{do} {number}", optional=random.random() < 0.1 or None,
                cleanup=random.random() < 0.08,
            )  # fmt: skip
            if random.random() < 0.5:
                undo = app.job("undo", {"game": game, "do": random.choice(["well", "well", "slow", "fail"])})
                node.compensate(undo, name=f"undo {node.name}")
            nodes.append(node)
    if not inner:
        flow.on_success(act(app, game, "well"), name="success")
        flow.on_failure(act(app, game, "well"), name="failure")
        flow.on_finish(act(app, game, "well"), name="finish")
    return flow


def _after(random: Random, nodes: list[Node[Any]]) -> Any:
    if not nodes or random.random() < 0.2:
        return None
    some = random.sample(nodes, min(len(nodes), random.choice([1, 1, 2])))
    kind = random.random()
    if kind < 0.1:
        return race(*some)
    if kind < 0.2:
        return any_of(*some)
    return [node.finished if random.random() < 0.15 else node for node in some]


def register(app: Flowrun, here: Closing) -> None:
    @app.handler("act", attempts=2, backoff=backoff.constant(0.0))
    async def act_out(job: Job, game: int, do: str) -> int:
        played = here.played[game]
        callback = is_callback(job.name or "")
        if not callback:
            played.journal.append(("begins", str(job.name)))
        try:
            if do == "slow":
                await asyncio.sleep(0.02)
            if do == "stubborn":
                try:
                    await asyncio.sleep(0.03)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.005)
                    raise
            if do == "spawn":
                job.spawn(act(app, game, "well"))
            if do == "cancel" and played.run is not None:
                played.verbs.append(f"{job.name} cancels ...")
                with contextlib.suppress(FlowrunError):
                    played.verbs.append(f"{job.name} cancels: {await played.run.cancel()}")
            if do == "fail":
                raise ValueError("as written")
            return 1
        finally:
            played.returned.set()

    @app.handler("undo", attempts=2, backoff=backoff.constant(0.0))
    async def undo(job: Job, game: int, do: str) -> None:
        played = here.played[game]
        played.journal.append(("undoes", str(job.name)))
        played.undoing.set()
        played.returned.set()
        if do == "slow":
            await asyncio.sleep(0.02)
        if do == "fail":
            raise ValueError("as written")


@asynccontextmanager
async def closing(dsn: str) -> AsyncIterator[Closing]:
    """Two apps as two programs would be, on one database."""
    with quiet():
        apps = [Flowrun(dsn, poll=0.2), Flowrun(dsn, poll=0.2)]
        connection = await asyncpg.connect(dsn)
        try:
            here = Closing(apps, connection)
            for app in apps:
                register(app, here)
            async with apps[0].worker(concurrency=20), apps[1].worker(concurrency=3):
                yield here
        finally:
            await connection.close()
