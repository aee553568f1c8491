"""Runs written flows for real, many at once, and compares what came of them with the reference."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pprint import pformat
from typing import Any

import asyncpg

from flowrun import Discard, FlowFailed, FlowRun, Flowrun, Job, Retry, Snooze, any_of, at_least, backoff
from flowrun import Flow as RealFlow
from flowrun import Node as RealNode
from tests.model import invariants
from tests.model.quiet import quiet
from tests.model.reference import Expected, expect, value_of
from tests.model.written import FAILED, Flow, Join, Node, Ref, When

TIMEOUT = 10.0
_runs = count()


@dataclass
class Arena:
    """Two workers of different size on one database, and a record of what their handlers saw."""

    apps: list[Flowrun]
    connection: asyncpg.Connection
    journal: dict[tuple[int, str], list[list[Any]]] = field(default_factory=lambda: defaultdict(list))
    """By flow and full name of the job: the arguments of each run."""
    flows: int = 0
    nodes: int = 0

    async def play(self, flows: Sequence[Flow]) -> None:
        """Dispatch all, wait for all, compare all. AssertionError says what is wrong."""
        numbers = [next(_runs) for _ in flows]
        runs = [
            await write(self.apps[number % len(self.apps)], flow, number).dispatch()
            for number, flow in zip(numbers, flows, strict=True)
        ]
        for number, flow, run in zip(numbers, flows, runs, strict=True):
            problems = await self._compare(number, flow, run)
            assert not problems, report(flow, problems)
        await self._quiet()
        await invariants.check(self.connection)
        await self._clear()
        self.flows += len(flows)
        self.nodes += sum(flow.size() for flow in flows)

    async def _compare(self, number: int, flow: Flow, run: FlowRun) -> list[str]:
        expected = expect(flow)
        try:
            status = await run.wait(timeout=TIMEOUT)
        except TimeoutError:
            found = {name: job.state for name, job in (await run.status()).nodes.items()}
            return [f"the flow has not ended: {pformat(found)}"]
        problems: list[str] = []
        callbacks = list(callback_names(flow))
        for name, job in status.nodes.items():
            if name not in callbacks and job.state not in ("succeeded", "failed", "skipped"):
                problems.append(f"the flow has ended, but {name} is {job.state}")
        for name in callbacks:
            with contextlib.suppress(TimeoutError):
                await run[name].wait(timeout=TIMEOUT)
        problems += await self._outcome(run, status.state, expected)
        problems += await self._jobs(number, run, expected)
        problems += await self._inner_flows(run, expected)
        return problems

    async def _outcome(self, run: FlowRun, found: str, expected: Expected) -> list[str]:
        state, result = expected.flows[""]
        problems = [f"the flow {found}, not {state}"] if found != state else []
        try:
            value = await run.result(timeout=TIMEOUT)
        except FlowFailed as failure:
            if state != FAILED or sorted(failure.failed) != sorted(expected.blamed):
                problems.append(f"the flow failed because of {failure.failed}, not {expected.blamed}")
        else:
            if state == FAILED or value != result:
                problems.append(f"the flow's result is {value!r}, not {result!r}")
        return problems

    async def _jobs(self, number: int, run: FlowRun, expected: Expected) -> list[str]:
        problems: list[str] = []
        status = await run.status()
        rows = await self.connection.fetch(KEPT, run.id)
        kept: dict[str, int] = {row["name"]: row["kept"] for row in rows}
        times = {row["name"]: row for row in rows}
        if status.nodes.keys() != expected.jobs.keys():
            problems.append(f"jobs {status.nodes.keys() ^ expected.jobs.keys()} are missing or too many")
        for name, job in expected.jobs.items():
            if name not in status.nodes:
                continue
            seen = self.journal.get((number, name), [])
            found = (status.nodes[name].state, status.nodes[name].attempts, len(seen), kept[name])
            wanted = (job.state, job.attempts, job.runs, job.failures)
            if found != wanted:
                problems.append(f"{name}: (state, attempts, runs, failures kept) are {found}, not {wanted}")
            for values in seen:
                if len(values) != len(job.given):
                    problems.append(f"{name}: was given {values!r}")
                for value, given in zip(values, job.given, strict=False):
                    if value != given.value and (given.certain or value is not None):
                        problems.append(f"{name}: was given {value!r}, not {given.value!r}")
            if seen and found == wanted:
                problems += too_early(name, job.required, job.joins, times)
        return problems

    async def _inner_flows(self, run: FlowRun, expected: Expected) -> list[str]:
        problems: list[str] = []
        rows = {row["name"]: row for row in await self.connection.fetch(INNER, run.id)}
        if rows.keys() != {name for name in expected.flows if name}:
            problems.append(f"inner flows {list(rows)} instead of {list(expected.flows)}")
        for name, row in rows.items():
            state, result = expected.flows[name]
            if row["state"] != state:
                problems.append(f"{name}: the inner flow {row['state']}, not {state}")
            if state == "succeeded" and (value := await run[name].result(timeout=TIMEOUT)) != result:
                problems.append(f"{name}: the inner flow's result is {value!r}, not {result!r}")
        return problems

    async def _quiet(self) -> None:
        """Wait until nothing is under way: flowrun's own jobs may end a moment after the flow. What stays is reported."""
        deadline = time.monotonic() + TIMEOUT
        while await self.connection.fetchval(UNDER_WAY) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    async def _clear(self) -> None:
        """The tables would grow with every example, and with them the time that each check takes."""
        await self.connection.execute(
            "truncate flowrun.flows, flowrun.jobs, flowrun.edges, flowrun.finished, flowrun.attempts"
        )
        self.journal.clear()

    async def reset(self) -> None:
        """After a failure: nothing of it may be left for the next."""
        for _ in range(100):
            await self.connection.execute("truncate flowrun.blocked, flowrun.scheduled, flowrun.ready")
            if not await self.connection.fetchval(UNDER_WAY):
                break
            await asyncio.sleep(0.05)
        await self.connection.execute("truncate flowrun.leases")
        await self._clear()


KEPT = """
select
    j.name, f.started_at, f.finished_at,
    (select count(*) from flowrun.attempts a where a.job_id = j.id) as kept
from flowrun.flows fl
join flowrun.jobs j on j.flow_id = fl.id and j.kind < 2
left join flowrun.finished f on f.id = j.id
where fl.root_id = $1
"""

UNDER_WAY = """
select exists (select from flowrun.leases) or exists (select from flowrun.ready)
    or exists (select from flowrun.scheduled) or exists (select from flowrun.blocked)
"""

INNER = """
select j.name, s.state from flowrun.flow_status s join flowrun.jobs j on j.id = s.id
where s.root_id = $1 and s.id <> $1
"""


def too_early(name: str, required: list[str], joins: list[tuple[int, list[str]]], times: dict[str, Any]) -> list[str]:
    """What must have ended before ``name`` started, and had not."""
    started = times[name]["started_at"]
    problems = [
        f"{name}: started before {parent} had ended" for parent in required if times[parent]["finished_at"] > started
    ]
    for enough, parents in joins:
        before = sum(times[parent]["finished_at"] <= started for parent in parents)
        if before < enough:
            problems.append(f"{name}: started after {before} of {parents}; {enough} were to end before")
    return problems


def callback_names(flow: Flow, prefix: str = "") -> Iterator[str]:
    yield from (prefix + callback.name for _, callback in flow.callbacks)
    for node in flow.nodes:
        if node.flow:
            yield from callback_names(node.flow, f"{prefix}{node.name}/")


def report(flow: Flow, problems: list[str]) -> str:
    return "\n".join([*problems, "", pformat(flow, width=140)])


# -- handlers ------------------------------------------------------------------------------------------------------------


def register(app: Flowrun, journal: dict[tuple[int, str], list[list[Any]]]) -> None:
    """The two handlers that play every part."""

    @app.handler
    async def act(job: Job, number: int, name: str, do: str, times: int, given: list[Any], pause: float) -> Any:
        runs = journal[number, name]
        runs.append(given)
        if pause:
            await asyncio.sleep(pause)
        return perform(job, name, do, times, len(runs))

    @app.handler
    def act_in_thread(job: Job, number: int, name: str, do: str, times: int, given: list[Any], pause: float) -> Any:
        runs = journal[number, name]
        runs.append(given)
        time.sleep(pause)
        return perform(job, name, do, times, len(runs))


def perform(job: Job, name: str, do: str, times: int, run: int) -> Any:
    again = 0.001 if "timed" in job.tags else 0.0
    if do in ("fail", "exhaust") or (do == "flaky" and job.attempt <= times):
        raise ValueError("as written")
    if do == "discard":
        raise Discard("as written")
    if do == "retry-out" or (do == "retry" and job.attempt <= times):
        raise Retry(again)
    if do == "snooze" and run <= times:
        raise Snooze(again)
    if do == "unstorable":
        return float("nan")
    return value_of(name, job.attempt)


# -- from written to real ------------------------------------------------------------------------------------------------


def write(app: Flowrun, written: Flow, number: int) -> RealFlow:
    """The flow, in flowrun's words."""
    flow = app.flow(written.name)
    _fill(app, flow, written, number, "", [])
    return flow


def _fill(
    app: Flowrun, flow: RealFlow, written: Flow, number: int, prefix: str, outer: list[dict[int, RealNode[Any]]]
) -> None:
    made: dict[int, RealNode[Any]] = {}
    around = [made, *outer]
    order = list(range(len(written.nodes)))
    if written.late:
        # Whatever refers to a result has to be written after it.
        order.sort(key=lambda n: n if _refers(written.nodes[n]) else -1 - n)
    for index in order:
        node = written.nodes[index]
        after = [] if written.late else [_condition(each, made) for each in node.after]
        if node.flow:
            what: Any = app.flow(node.name)
            _fill(app, what, node.flow, number, f"{prefix}{node.name}/", around)
        else:
            what = _job(app, node, number, prefix, around)
        made[index] = flow.add(what, after=after or None, name=node.name, optional=node.optional or None)
    if written.late:
        for index, node in enumerate(written.nodes):
            made[index].also_after(*(_condition(each, made) for each in node.after))
    for when, callback in written.callbacks:
        add = {"succeeded": flow.on_success, "failed": flow.on_failure, "finished": flow.on_finish}[when]
        add(_job(app, callback, number, prefix, around), name=callback.name)
    if written.output is not None:
        flow.output = made[written.output] if number % 2 else written.nodes[written.output].name


def _refers(node: Node, level: int = 0) -> bool:
    """Whether something in ``node`` refers to a result of the flow it is a node of."""
    if node.flow:
        return any(_refers(inner, level + 1) for inner in node.flow.nodes)
    return any(ref.level == level for ref in node.refs)


def _job(app: Flowrun, node: Node, number: int, prefix: str, around: list[dict[int, RealNode[Any]]]) -> Any:
    arguments = {
        "number": number,
        "name": prefix + node.name,
        "do": node.do,
        "times": node.times,
        "given": [_reference(ref, around) for ref in node.refs],
        "pause": node.pause / 1000,
    }
    attempts = {"fail": 1, "flaky": node.times + 1, "exhaust": node.times + 1, "retry": node.times + 1}
    attempts |= {"retry-out": node.times + 1, "snooze": 1}
    options: dict[str, Any] = {"attempts": attempts.get(node.do, 5), "backoff": backoff.constant(0.0)}
    if node.timed:
        options |= {"delay": 0.001, "tags": ["timed"]}
    return app.job("act_in_thread" if node.thread else "act", arguments, **options)


def _reference(ref: Ref, around: list[dict[int, RealNode[Any]]]) -> Any:
    result = around[ref.level][ref.index].result
    return {"all": lambda: result, "of": lambda: result["of"], "item": lambda: result.items[0]}[ref.path]()


def _condition(condition: When | Join, made: dict[int, RealNode[Any]]) -> Any:
    if isinstance(condition, When):
        node = made[condition.index]
        if condition.condition == "succeeded":
            # All three ways of writing it.
            return [node, node.name, node.succeeded][condition.index % 3]
        return node.failed if condition.condition == FAILED else node.finished
    whens = [_condition(when, made) for when in condition.whens]
    return any_of(*whens) if condition.count == 1 else at_least(condition.count, *whens)


# -- where it runs -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def arena(dsn: str) -> AsyncIterator[Arena]:
    """Two apps as two programs would be, one of them narrow, on one database."""
    with quiet():
        apps = [Flowrun(dsn), Flowrun(dsn)]
        connection = await asyncpg.connect(dsn)
        try:
            here = Arena(apps, connection)
            for app in apps:
                register(app, here.journal)
            async with apps[0].worker(concurrency=20), apps[1].worker(concurrency=2):
                yield here
        finally:
            await connection.close()
