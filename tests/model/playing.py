"""Runs varied flows for real, many at once, and compares what came of them with what was expected."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from pprint import pformat
from typing import Any

import asyncpg

from flowrun import Flow, FlowRun, Flowrun, Job, Node, any_of, backoff, race
from tests.model import invariants
from tests.model.arena import UNDER_WAY
from tests.model.quiet import quiet
from tests.model.varied import Edge, Life, Spawn, Step, Varied, expect, expect_again, undone, walk
from tests.model.wild import CLEAR

TIMEOUT = 20.0
CALLBACKS = ("success", "failure", "finish")
_numbers = count()


@dataclass
class Playground:
    """Two workers on one database, and what their handlers saw."""

    apps: list[Flowrun]
    connection: asyncpg.Connection
    runs: Counter[tuple[int, str]] = field(default_factory=Counter)
    undoing: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """By flow: what was undone, "begin" and "end"."""
    mended: set[int] = field(default_factory=set)
    flows: int = 0

    async def play(self, flows: Sequence[Varied]) -> None:
        """Dispatch all, wait for all, compare all. AssertionError says what is wrong."""
        numbered = [(next(_numbers), flow) for flow in flows]
        found = await asyncio.gather(*(self._one(number, flow) for number, flow in numbered), return_exceptions=True)
        for problems, (_, flow) in zip(found, numbered, strict=True):
            if isinstance(problems, BaseException):
                raise AssertionError(f"{problems!r}\n{pformat(flow, width=140)}") from problems
            assert not problems, "\n".join([*problems, pformat(flow, width=140)])
        deadline = time.monotonic() + TIMEOUT
        while await self.connection.fetchval(UNDER_WAY) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        await invariants.check(self.connection)
        await self.connection.execute(CLEAR)
        self.flows += len(flows)

    async def reset(self) -> None:
        """After a failure: nothing of it may be left for the next."""
        while await self.connection.fetchval(UNDER_WAY):
            await self.connection.execute("truncate flowrun.blocked, flowrun.scheduled, flowrun.ready, flowrun.gates")
            await self.connection.execute(
                "insert into flowrun.cancels (id) select unnest(jobs) from flowrun.leases on conflict do nothing"
            )
            await asyncio.sleep(0.2)
        await self.connection.execute(CLEAR)

    async def _one(self, number: int, flow: Varied) -> list[str]:
        run = await self._write(flow, number).dispatch()
        for name, step in walk(flow.steps):
            if step.kind == "gate" and step.do == "signal":
                await asyncio.sleep(0.001 * (number % 3))
                await run.signal(name, step.answer)
        life = expect(flow)
        problems = await self._compare(number, flow, run, life)
        if flow.again and life.state == "failed" and not problems:
            self.mended.add(number)
            await run.retry()
            problems = await self._compare(number, flow, run, expect_again(flow, life))
            problems = [f"after the retry: {problem}" for problem in problems]
        return problems

    async def _compare(self, number: int, flow: Varied, run: FlowRun, life: Life) -> list[str]:
        try:
            status = await run.wait(timeout=TIMEOUT)
        except TimeoutError:
            open_still = {n: j.state for n, j in (await run.status()).nodes.items() if j.finished_at is None}
            return [f"not ended: {await run.explain()}", f"{open_still}"]
        for name in CALLBACKS:
            await run[name].wait(timeout=TIMEOUT)
        problems = [f"the flow {status.state}, not {life.state}"] if status.state != life.state else []
        inner = {name for name, step in walk(flow.steps) if step.kind == "flow"}
        for name in life.states.keys() - inner:
            found = status.nodes[name].state if name in status.nodes else "not there"
            if found != life.states[name]:
                error = status.nodes[name].error if name in status.nodes else None
                problems.append(f"{name} is {found}, not {life.states[name]}: {error}")
        known = {*life.states, *CALLBACKS}
        if more := {name for name, job in status.nodes.items() if job.type != "undo" and name not in known}:
            problems.append(f"nobody asked for {more}")
        problems += self._undone(number, flow, life, status.detail)
        told = [self.runs[number, name] for name in CALLBACKS]
        failed = number in self.mended or life.state == "failed"
        if told != [int(life.state == "succeeded"), int(failed), 1]:
            problems.append(f"callbacks for success, failure and finish ran {told} times; the flow {life.state}")
        return problems

    def _undone(self, number: int, flow: Varied, life: Life, detail: str | None) -> list[str]:
        wanted = undone(flow, life)
        seen = self.undoing[number]
        ended = [name for name, what in seen if what == "end"]
        if sorted(ended) != sorted(wanted):
            return [f"undone was {ended}, not {wanted}"]
        if wanted and detail != "compensated":
            return [f"the flow's detail is {detail}"]
        return [
            f"{before} was being undone before {name} was"
            for name in wanted
            for before in wanted
            if before in life.ancestors[name] and seen.index((before, "begin")) < seen.index((name, "end"))
        ]

    # -- writing it in flowrun's words

    def _write(self, written: Varied, number: int) -> Flow:
        app = self.apps[number % len(self.apps)]
        flow = app.flow(f"flow {number}")
        self._fill(app, flow, written.steps, number, "")
        flow.on_success(act(app, number, "success"), name="success")
        flow.on_failure(act(app, number, "failure"), name="failure")
        flow.on_finish(act(app, number, "finish"), name="finish")
        return flow

    def _fill(self, app: Flowrun, flow: Flow, steps: list[Step], number: int, prefix: str) -> None:
        made: list[Node[Any]] = []
        for step in steps:
            after = [_condition(edge, made) for edge in step.after]
            if step.either:
                after.append(any_of(*(_condition(edge, made) for edge in step.either)))
            made.append(self._node(app, flow, step, made, number, prefix, after or None))

    def _node(
        self, app: Flowrun, flow: Flow, step: Step, made: list[Node[Any]], number: int, prefix: str, after: Any
    ) -> Node[Any]:
        name = prefix + step.name
        optional = step.optional or None
        if step.kind == "flow":
            inner = app.flow(step.name)
            self._fill(app, inner, step.steps, number, f"{name}/")
            return flow.add(inner, after=after, name=step.name, optional=optional)
        if step.kind == "sleep":
            return flow.sleep(0.005, after=after, name=step.name)
        if step.kind == "gate":
            more: dict[str, Any] = {} if step.do == "signal" else {"timeout": 0.01}
            if step.do == "default":
                more["default"] = "no"
            return flow.wait_for(name, after=after, name=step.name, answers=["yes", "no"], optional=optional, **more)
        if step.kind == "map":
            item = app.job("act", {"flow": number, "name": f"{name}[]"}, attempts=1)
            on_error = "cancel_siblings" if step.do == "cancel" else "finish"
            over = made[step.over].result["items"]
            return flow.map(
                item, over, argument="do", after=after, name=step.name, optional=optional, on_error=on_error
            )
        if step.kind == "race":
            a, b = {"first": ("well", "lose"), "second": ("fail", "well"), "neither": ("fail", "lose next")}[step.do]
            first = flow.add(act(app, number, f"{name}-a", a), name=f"{step.name}-a", after=after)
            after = first.failed if step.do == "second" else after
            second = flow.add(act(app, number, f"{name}-b", b), name=f"{step.name}-b", after=after)
            return flow.add(act(app, number, name), name=step.name, after=race(first, second))
        undo = None
        if step.undo:
            undo = app.job("undo", {"flow": number, "name": name, "do": step.undo}, attempts=2)
        spawns = [[spawn.do, spawn.after, spawn.detached, spawn.optional] for spawn in step.spawns]
        given = {"value": step.value, "items": step.items, "spawns": spawns, "pause": step.pause / 1000}
        job = act(app, number, name, step.do, **given)
        return flow.add(job, after=after, name=step.name, optional=optional, compensate=undo)


def act(app: Flowrun, number: int, name: str, do: str = "well", **given: Any) -> Any:
    attempts = 2 if do == "flaky" else 1
    return app.job("act", {"flow": number, "name": name, "do": do, **given}, attempts=attempts)


def _condition(edge: Edge, made: list[Node[Any]]) -> Any:
    node = made[edge.index]
    if edge.condition == "n >":
        return node.when("n", ">", edge.value)
    if edge.condition == "is":
        return node.when(edge.value)
    return {"succeeded": node, "failed": node.failed, "finished": node.finished}[edge.condition]


def register(app: Flowrun, here: Playground) -> None:
    """The handlers that play every part."""

    @app.handler("act", backoff=backoff.constant(0.0))
    async def play_part(
        job: Job,
        flow: int,
        name: str,
        do: str,
        value: int = 0,
        items: list[str] | None = None,
        spawns: list[Any] | None = None,
        pause: float = 0.0,
    ) -> Any:
        here.runs[flow, name] += 1
        await asyncio.sleep(pause)
        mended = flow in here.mended
        if do == "lose" or do == ("lose next" if mended else "hang"):
            await asyncio.sleep(600)
        nodes: list[Node[Any]] = []
        for number, spawned in enumerate(spawns or []):
            spawn = Spawn(*spawned)
            node = job.spawn(
                act(app, flow, f"{name}-{number}", spawn.do).options(optional=spawn.optional),
                name=f"{name.rpartition('/')[2]}-{number}",
                after=None if spawn.after is None else nodes[spawn.after],
                detached=spawn.detached,
            )
            nodes.append(node)
        if (do in ("fail", "lose next") and not mended) or (do == "flaky" and job.attempt == 1):
            raise ValueError("as written")
        return {"n": value, "items": items}

    @app.handler("undo", backoff=backoff.constant(0.0))
    async def undo(job: Job, flow: int, name: str, do: str) -> None:
        if job.attempt == 1:
            here.undoing[flow].append((name, "begin"))
        if do == "flaky" and job.attempt == 1:
            raise ValueError("as written")
        here.undoing[flow].append((name, "end"))


@asynccontextmanager
async def playground(dsn: str) -> AsyncIterator[Playground]:
    """Two apps as two programs would be, on one database."""
    with quiet():
        apps = [Flowrun(dsn, poll=0.5), Flowrun(dsn, poll=0.5)]
        connection = await asyncpg.connect(dsn)
        try:
            here = Playground(apps, connection)
            for app in apps:
                register(app, here)
            async with apps[0].worker(concurrency=30), apps[1].worker(concurrency=30):
                yield here
        finally:
            await connection.close()


# -- from many flows of which one failed to a small one that fails too ---------------------------------------------------


async def offence(here: Playground, flows: Sequence[Varied], times: int = 1) -> str | None:
    """What is wrong, if anything is."""
    for _ in range(times):
        try:
            await here.play(flows)
        except AssertionError as error:
            await here.reset()
            return str(error)
    return None


async def smallest(here: Playground, flows: Sequence[Varied], problem: str) -> str:
    """The smallest flow found that is wrong too; what is wrong now and then is tried several times."""
    for flow in flows:
        alone = await offence(here, [flow], 3)
        if alone is not None:
            break
    else:
        return f"(each flow alone is as expected)\n{problem}"
    deadline = time.monotonic() + 120
    again = True
    while again and time.monotonic() < deadline:
        again = False
        for candidate in smaller(flow):
            worse = await offence(here, [candidate], 2)
            if worse is not None:
                flow, alone, again = candidate, worse, True
                break
    return alone


def smaller(flow: Varied) -> Iterator[Varied]:
    """Copies with a step, an edge or a trait less; the big steps first."""
    places = [name for name, _ in walk(flow.steps)]
    for name in reversed(places):
        copy = deepcopy(flow)
        around, index = _place(copy, name)
        if len(around) > 1 and not any(step.kind == "map" and step.over == index for step in around):
            around.pop(index)
            for step in around:
                step.after = [edge for edge in step.after if edge.index != index]
                step.either = [edge for edge in step.either if edge.index != index]
                step.over -= step.over > index
                for edge in [*step.after, *step.either]:
                    edge.index -= edge.index > index
            yield copy
    plain = Step("")
    for name, step in walk(flow.steps):
        for trait in ("after", "either", "spawns", "optional", "undo", "pause", "items"):
            if getattr(step, trait) != getattr(plain, trait) and (trait != "items" or step.kind == "job"):
                copy = deepcopy(flow)
                around, index = _place(copy, name)
                if trait != "items" or not any(other.kind == "map" and other.over == index for other in around):
                    setattr(around[index], trait, getattr(plain, trait))
                    yield copy
        for trait in ("after", "either", "spawns"):
            for number in range(len(getattr(step, trait))):
                copy = deepcopy(flow)
                around, index = _place(copy, name)
                getattr(around[index], trait).pop(number)
                for spawn in around[index].spawns:
                    spawn.after = None
                yield copy


def _place(flow: Varied, name: str) -> tuple[list[Step], int]:
    around = flow.steps
    *outer, own = name.split("/")
    for part in outer:
        around = next(step for step in around if step.name == part).steps
    return around, next(n for n, step in enumerate(around) if step.name == own)
