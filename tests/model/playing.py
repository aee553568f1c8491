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

from flowrun import Flow, FlowRun, Flowrun, Job, Node, Retry, Snooze, any_of, backoff, race
from tests.model import invariants
from tests.model.arena import UNDER_WAY
from tests.model.quiet import quiet
from tests.model.varied import Edge, Life, Step, Varied, expect, expect_again, undone, walk
from tests.model.wild import CLEAR

TIMEOUT = 20.0
FLOWS = """
select j.name, s.state from flowrun.flow_status s join flowrun.jobs j on j.id = s.id
where s.root_id = $1 and s.id <> $1
"""
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
    inputs: dict[tuple[int, str, bool], Any] = field(default_factory=dict)
    """By flow, job, and whether it was retried: what its first attempt was given."""
    snoozed: set[tuple[Any, str]] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)
    """What a later attempt was given that the first one was not."""
    flows: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of the connection, which does one thing at a time."""

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
            if step.kind == "race" and step.racers[0] == "gate":
                await run.signal(f"{name}-a", "yes")
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
        async with self.lock:
            flows = dict(await self.connection.fetch(FLOWS, run.id))
        for name in life.states:
            found = status.nodes[name].state if name in status.nodes else flows.get(name, "not there")
            if found != life.states[name] and (found != "not there" or name not in life.maybe):
                error = status.nodes[name].error if name in status.nodes else None
                problems.append(f"{name} is {found}, not {life.states[name]}: {error}")
        known = {*life.states, *CALLBACKS}
        if more := {name for name, job in status.nodes.items() if job.type != "undo" and name not in known}:
            problems.append(f"nobody asked for {more}")
        problems += self._undone(number, flow, life, status.detail)
        problems += self.changed
        self.changed = []
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
            return self._race(app, flow, step, number, prefix, after)
        undo = None
        if step.undo:
            undo = app.job("undo", {"flow": number, "name": name, "do": step.undo}, attempts=2)
        given = {"value": step.value, "items": step.items, "pause": step.pause / 1000}
        given["spawns"] = [
            [one.do, one.after, one.stored is not None and made[one.stored].name, one.detached, one.optional]
            for one in step.spawns
        ]
        given["given"] = [made[edge.index].result for edge in step.either]
        job = act(app, number, name, step.do, **given)
        return flow.add(job, after=after, name=step.name, optional=optional, compensate=undo)

    def _race(self, app: Flowrun, flow: Flow, step: Step, number: int, prefix: str, after: Any) -> Node[Any]:
        name = prefix + step.name
        a, b = {"first": ("well", "lose"), "second": ("fail", "well"), "neither": ("fail", "lose next")}[step.do]
        if step.do == "second":
            first = flow.add(act(app, number, f"{name}-a", a), name=f"{step.name}-a", after=after)
            second = flow.add(act(app, number, f"{name}-b", b), name=f"{step.name}-b", after=first.failed)
        else:
            first = self._racer(app, flow, step.racers[0], number, prefix, f"{step.name}-a", a, after)
            second = self._racer(app, flow, step.racers[1], number, prefix, f"{step.name}-b", b, after)
        winner = first.when("n", "==", 0) if step.racers[0] == "tested" else first
        return flow.add(act(app, number, name), name=step.name, after=race(winner, second))

    def _racer(
        self, app: Flowrun, flow: Flow, kind: str, number: int, prefix: str, name: str, do: str, after: Any
    ) -> Node[Any]:
        full = prefix + name
        if kind == "gate":
            return flow.wait_for(full, name=name, after=after)
        if kind == "map":
            item = app.job("act", {"flow": number, "name": f"{full}[]"}, attempts=3)
            return flow.map(item, [do, do], argument="do", after=after, name=name)
        if kind in ("flow", "late"):
            if kind == "late":
                slow = act(app, number, f"{full}-slow", pause=0.03)
                after = flow.add(slow, name=f"{name}-slow", after=after)
            inner = app.flow(name)
            x = inner.add(act(app, number, f"{full}/x", do), name="x")
            inner.add(act(app, number, f"{full}/y"), name="y", after=x)
            return flow.add(inner, name=name, after=after)
        more: dict[str, Any] = {"spawns": [["well", None, False, False, False]]} if kind == "spawner" else {}
        return flow.add(act(app, number, full, do, **more), name=name, after=after)


def act(app: Flowrun, number: int, name: str, do: str = "well", **given: Any) -> Any:
    attempts = 2 if do in ("flaky", "retry") else 1
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
        given: list[Any] | None = None,
    ) -> Any:
        here.runs[flow, name] += 1
        mended = flow in here.mended
        told = given, {parent: one.outcome for parent, one in job.parents.items()}
        if not name.endswith("[]") and here.inputs.setdefault((flow, name, mended), told) != told:
            here.changed.append(f"{name} was given {here.inputs[flow, name, mended]} first, then {told}")
        await asyncio.sleep(pause)
        if do == "lose" or do == ("lose next" if mended else "hang"):
            await asyncio.sleep(600)
        nodes: list[Node[Any]] = []
        for number, spawned in enumerate(spawns or []):
            what, after, stored, detached, optional = spawned
            waits = [*([] if after is None else [nodes[after]]), *([stored] if stored else [])]
            node = job.spawn(
                act(app, flow, f"{name}-{number}", what).options(optional=optional),
                name=f"{name.rpartition('/')[2]}-{number}",
                after=waits or None,
                detached=detached,
            )
            nodes.append(node)
        if (do in ("fail", "lose next") and not mended) or (do == "flaky" and job.attempt == 1):
            raise ValueError("as written")
        if do == "retry" and job.attempt == 1:
            raise Retry(0.0)
        if do == "snooze" and (job.id, do) not in here.snoozed:
            here.snoozed.add((job.id, do))
            raise Snooze(0.002)
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
                for spawn in step.spawns:
                    if spawn.stored is not None:
                        spawn.stored = None if spawn.stored == index else spawn.stored - (spawn.stored > index)
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
                if trait == "spawns":
                    for spawn in around[index].spawns:
                        spawn.after = None
                yield copy


def _place(flow: Varied, name: str) -> tuple[list[Step], int]:
    around = flow.steps
    *outer, own = name.split("/")
    for part in outer:
        around = next(step for step in around if step.name == part).steps
    return around, next(n for n, step in enumerate(around) if step.name == own)
