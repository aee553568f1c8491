"""Flows written at random: refused with their nodes named, or laid out so that all of it comes to an end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from flowrun.core.cascade import Counters, Edge, Ended, decide
from flowrun.core.compile import compile_flow
from flowrun.core.flow import Flow, Node, any_of, at_least, race
from flowrun.core.job import JobSpec
from flowrun.core.plan import Plan
from flowrun.core.states import Condition, Kind, Outcome
from flowrun.errors import FlowrunError
from tests.core.test_compile import encode, mint

NAMES = ["a", "b", "c", "pay", "pay-2", "", "x/y", "(start)", "f", "\x00", "é" * 99, "[0]", "a -> b"]

VALUES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "job",
                "job",
                "job",
                "chain",
                "gate",
                "sleep",
                "flow",
                "nest",
                "after",
                "after",
                "uses",
                "callback",
                "undo",
                "same",
                "map",
                "twice",
            ]
        ),
        st.integers(0, 30),
        st.integers(0, 30),
        st.sampled_from(["node", "failed", "finished", "any", "two", "race", "when", "name", "none", "own"]),
        st.none() | st.sampled_from(NAMES),
        st.booleans(),
    ),
    max_size=14,
)


class Writing:
    """Flows being written."""

    def __init__(self) -> None:
        self.flows = [Flow("f")]
        self.nodes: list[Node[Any]] = []

    def do(self, kind: str, one: int, two: int, how: str, name: str | None, cleanup: bool) -> None:
        flow = self.flows[one % len(self.flows)]
        verb: dict[str, Callable[[], Any]] = {
            "job": lambda: flow.add(spec(two), name=name, after=self._after(one, two, how), cleanup=cleanup, optional=cleanup),
            "chain": lambda: flow.chain(spec(one), spec(two), spec(one), after=self._after(one, two, how)),
            "gate": lambda: flow.wait_for("s", name=name, after=self._after(one, two, how), answers=["yes"] if cleanup else None),
            "sleep": lambda: flow.sleep(float(two), after=self._after(one, two, how), name=name),
            "flow": lambda: self.flows.append(Flow(name or "inner")),
            "nest": lambda: flow.add(self.flows[two % len(self.flows)], name=name, after=self._after(one, two, how), cleanup=cleanup),
            "after": lambda: self._node(one) and self._node(one).also_after(*(self._after(two, one, how) or [])),
            "uses": lambda: flow.add(JobSpec("u", (), {"x": [self._node(two).result["k"], 1]}), name=name, after=self._after(one, two, how)),
            "callback": lambda: flow.on_finish(spec(two), name=name) if cleanup else flow.on_failure(spec(two), name=name),
            "undo": lambda: self._node(one).compensate(spec(two), name=name),
            "same": lambda: flow.add(spec(0), name="a"),
            "map": lambda: flow._map(spec(two), self._node(one).result, "item", after=None, name=name, optional=None, on_error="finish"),
            "twice": lambda: flow.add(spec(two), after=[self._node(one), self._node(one), self._node(one).finished]),
        }  # fmt: skip
        if kind in ("uses", "undo", "map", "twice", "after") and not self.nodes:
            return
        try:
            made = verb[kind]()
        except FlowrunError as error:
            assert str(error)
            return
        self.nodes += [node for node in (made if isinstance(made, list) else [made]) if isinstance(node, Node)]

    def _node(self, number: int) -> Node[Any]:
        return self.nodes[number % len(self.nodes)]

    def _after(self, one: int, two: int, how: str) -> Any:
        if not self.nodes or how == "none":
            return ["a"] if how == "name" else None
        first, second, third = self._node(one), self._node(two), self._node(one + two)
        made: dict[str, Callable[[], Any]] = {
            "node": lambda: first, "failed": lambda: first.failed, "finished": lambda: [first.finished, second],
            "any": lambda: any_of(first, second), "two": lambda: [at_least(2, first, second, third.failed), third],
            "race": lambda: race(first, second.finished), "when": lambda: [first.when("k", ">", 1), second],
            "name": lambda: "a", "own": lambda: [any_of(first, "b"), race(second, third), third.when("yes")],
        }  # fmt: skip
        found = made[how]()
        return found if isinstance(found, list) else [found]


def spec(number: int) -> JobSpec[Any]:
    return JobSpec[Any]("abc"[number % 3], (), {})


def check(program: list[tuple[Any, ...]]) -> None:
    writing = Writing()
    for step in program:
        writing.do(*step)
    for flow in writing.flows:
        str(flow), flow.mermaid(), flow.svg()
        try:
            compiled = compile_flow(flow, encode, json.dumps, mint)
        except FlowrunError as error:
            _names_something(error, writing)
            continue
        _consistent(compiled.plan, compiled.flow_id)
        assert {compiled.names[node.name][0] for node in flow.nodes} <= {row.id for row in compiled.plan.jobs}
        for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED):
            _ends(compiled.plan, compiled.flow_id, outcome)


def _names_something(error: FlowrunError, writing: Writing) -> None:
    named = {node.name for node in writing.nodes} | {flow.name for flow in writing.flows}
    assert any(name in str(error) for name in named), error


def _consistent(plan: Plan, root: UUID) -> None:
    place = {row.id: at for at, row in enumerate(plan.jobs)}
    assert len(place) == len(plan.jobs)
    flows = {flow.id for flow in plan.flows}
    assert root in flows
    assert all(flow.root_id == root for flow in plan.flows)
    assert flows <= place.keys()  # each has its end
    parents: dict[UUID, list[UUID]] = {id: [] for id in place}
    keys = set()
    for parent, child, condition in [*plan.edges, *(edge[:3] for edge in plan.tests)]:
        assert place[parent] < place[child]
        assert (parent, child, condition) not in keys
        keys.add((parent, child, condition))
        parents[child].append(parent)
    blocked = {id: (need, open) for id, need, open in plan.blocked}
    assert len(blocked) == len(plan.blocked)
    assert {row.id for row in plan.free} == place.keys() - blocked.keys()
    for row in plan.jobs:
        assert (row.flow_id in flows) if row.id != root else row.flow_id is None
        assert (row.kind == Kind.END) == (row.id in flows)
        if row.id in blocked:
            need, open = blocked[row.id]
            assert open == len(parents[row.id])
            assert 0 < need <= open
        else:
            assert not parents[row.id]
        assert set(row.sources or ()) <= place.keys()
        assert (row.sources is None) == (row.bindings is None)
        for source in row.sources or ():
            assert place[source] < place[row.id]
    names = [row.name for row in plan.jobs if row.flow_id is not None]
    assert len(set(names)) == len(names)


def _ends(plan: Plan, root: UUID, outcome: Outcome) -> None:
    """Let every handler come to the same: nothing is left waiting, and what ends a flow ends last of what it waits for."""
    edges = [Edge(*edge[:2], Condition(edge[2])) for edge in plan.edges]
    for parent, child, _, text in plan.tests:
        test = json.loads(text)
        rivals = [UUID(one) for one in test.get("rivals", ())]
        edges.append(Edge(parent, child, Condition(test["on"]), "op" not in test, rivals))
    kinds = {row.id: row.kind for row in plan.jobs}
    waiting = {id: Counters(need, open) for id, need, open in plan.blocked}
    fresh, ended = [row.id for row in plan.free], set()
    while fresh:
        own = {Kind.JOIN: Outcome.SUCCEEDED, Kind.END: outcome, Kind.SLEEP: Outcome.SUCCEEDED, Kind.VERDICT: outcome}
        ends = {id: Ended(own.get(Kind(kinds[id]), outcome)) for id in fresh if id not in ended}
        ended |= ends.keys()
        cascade = decide(ends, edges, waiting)
        waiting |= cascade.waiting
        for id in [*cascade.released, *cascade.skipped]:
            waiting.pop(id, None)
        ended |= cascade.skipped.keys()
        fresh = list(cascade.released)
        losers = [id for id in cascade.losers if id in waiting]
        if losers:
            more = decide(
                {id: Ended(Outcome.CANCELLED) for id in losers},
                edges,
                {k: v for k, v in waiting.items() if k not in losers},
            )
            for id in [*losers, *more.released, *more.skipped]:
                waiting.pop(id, None)
            waiting |= more.waiting
            ended |= {*losers, *more.skipped}
            fresh += more.released
    assert not waiting, "something waits for ever"
    assert root in ended
