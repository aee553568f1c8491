"""What a flow must come to, by the table of the public contract. Written from that table, not from flowrun.

| edge | satisfied by |
|---|---|
| succeeded | succeeded; failed, when that node is optional |
| failed | failed |
| finished | any outcome |

A node runs when all its edges are satisfied, of a join enough; else it is skipped. All ends are final, so the answer
does not depend on the order in which things happen, but for one thing: a node that a join releases before one of the
join's other parents has ended finds None for that parent's result, or the result, as it happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.model.written import FAILED, FINISHED, SUCCEEDED, Flow, Join, Node, Ref, When

SKIPPED = "skipped"


@dataclass
class Job:
    state: str
    attempts: int = 0
    runs: int = 0
    failures: int = 0
    """Attempts that are kept as not successful."""
    given: list[Given] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    """Full names of what must have ended before it starts."""
    joins: list[tuple[int, list[str]]] = field(default_factory=list)
    """So many of these, which satisfy it, must have ended before it starts."""


@dataclass
class Given:
    value: Any
    certain: bool
    """Whether its parent must have ended; else None may come instead."""


@dataclass
class Expected:
    jobs: dict[str, Job] = field(default_factory=dict)
    flows: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """By full name (the outermost: ""): state and result."""
    blamed: list[str] = field(default_factory=list)
    """The failed jobs because of which the outermost flow failed."""


@dataclass
class _Scope:
    flow: Flow
    prefix: str
    states: list[str] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    blamed: list[list[str]] = field(default_factory=list)


@dataclass
class _Entrance:
    """What a job waits for because of the flows it is in."""

    required: list[str] = field(default_factory=list)
    joins: list[tuple[int, list[str]]] = field(default_factory=list)


def value_of(name: str, attempt: int) -> dict[str, Any]:
    """What the job ``name`` returns: the one thing that reference and handler agree on."""
    return {"of": name, "items": [name, attempt]}


def expect(flow: Flow) -> Expected:
    """What becomes of ``flow``."""
    expected = Expected()
    _flow(flow, "", True, [], _Entrance(), expected)
    return expected


def satisfies(state: str, optional: bool, condition: str) -> bool:
    return {
        SUCCEEDED: state == SUCCEEDED or (state == FAILED and optional),
        FAILED: state == FAILED,
        FINISHED: True,
    }[condition]


def _flow(
    flow: Flow, prefix: str, entered: bool, outer: list[_Scope], entrance: _Entrance, expected: Expected
) -> tuple[str, Any, list[str]]:
    scope = _Scope(flow, prefix)
    scopes = [scope, *outer]
    for node in flow.nodes:
        state, result, blamed = _node(node, prefix + node.name, entered, scopes, entrance, expected)
        scope.states.append(state)
        scope.results.append(result)
        scope.blamed.append(blamed)
    guilty = [n for n, node in enumerate(flow.nodes) if scope.states[n] == FAILED and not node.optional]
    state = SKIPPED if not entered else FAILED if guilty else SUCCEEDED
    result = _result(scope) if state == SUCCEEDED else None
    blamed = [name for n in guilty for name in scope.blamed[n]]
    name = prefix.rstrip("/")
    expected.flows[name] = (state, result)
    if not prefix:
        expected.blamed = blamed
    for when, callback in flow.callbacks:
        runs = satisfies(state, False, when)
        expected.jobs[prefix + callback.name] = _run(callback, []) if runs else Job(SKIPPED)
    return state, result, blamed


def _node(
    node: Node, name: str, entered: bool, scopes: list[_Scope], entrance: _Entrance, expected: Expected
) -> tuple[str, Any, list[str]]:
    own = scopes[0]
    waits = _Entrance(list(entrance.required), list(entrance.joins))
    satisfied = entered
    certain: set[int] = set()
    known: set[int] = set()
    for condition in node.after:
        if isinstance(condition, Join):
            meeting = [when for when in condition.whens if _satisfied(when, own)]
            satisfied &= len(meeting) >= condition.count
            parents = {when.index for when in condition.whens}
            known |= parents
            if condition.count == len(condition.whens):
                certain |= parents
            waits.joins.append((condition.count, [_name(own, when.index) for when in meeting]))
        else:
            satisfied &= _satisfied(condition, own)
            known.add(condition.index)
            certain.add(condition.index)
            waits.required.append(_name(own, condition.index))
    for ref in node.refs:
        if ref.level > 0 or ref.index not in known:
            scope = scopes[ref.level]
            satisfied &= satisfies(scope.states[ref.index], scope.flow.nodes[ref.index].optional, SUCCEEDED)
            waits.required.append(_name(scope, ref.index))
            if ref.level == 0:
                certain.add(ref.index)
    if node.flow:
        return _flow(node.flow, f"{name}/", satisfied, scopes, waits, expected)
    if satisfied:
        given = [Given(_given(ref, scopes), ref.level > 0 or ref.index in certain) for ref in node.refs]
        job = _run(node, given)
        job.required, job.joins = waits.required, waits.joins
    else:
        job = Job(SKIPPED)
    expected.jobs[name] = job
    result = value_of(name, job.attempts) if job.state == SUCCEEDED else None
    return job.state, result, [name] if job.state == FAILED else []


def _satisfied(when: When, scope: _Scope) -> bool:
    return satisfies(scope.states[when.index], scope.flow.nodes[when.index].optional, when.condition)


def _name(scope: _Scope, index: int) -> str:
    return scope.prefix + scope.flow.nodes[index].name


def _given(ref: Ref, scopes: list[_Scope]) -> Any:
    result = scopes[ref.level].results[ref.index]
    if result is None or ref.path == "all":
        return result
    return result["of"] if ref.path == "of" else result["items"][0]


def _run(node: Node, given: list[Given]) -> Job:
    times = node.times
    state, attempts, runs, failures = {
        "succeed": (SUCCEEDED, 1, 1, 0),
        "fail": (FAILED, 1, 1, 1),
        "flaky": (SUCCEEDED, times + 1, times + 1, times),
        "exhaust": (FAILED, times + 1, times + 1, times + 1),
        "discard": (FAILED, 1, 1, 1),
        "retry": (SUCCEEDED, times + 1, times + 1, times),
        "retry-out": (FAILED, times + 1, times + 1, times + 1),
        "snooze": (SUCCEEDED, 1, times + 1, 0),
        "unstorable": (FAILED, 1, 1, 1),
    }[node.do]
    return Job(state, attempts, runs, failures, given)


def _result(scope: _Scope) -> Any:
    """The node that ``output=`` names, else the single last node's, else all last nodes' by name."""
    flow = scope.flow
    if flow.output is not None:
        return scope.results[flow.output]
    followed = _followed(flow, 0)
    last = [n for n in range(len(flow.nodes)) if n not in followed]
    if len(last) == 1:
        return scope.results[last[0]]
    return {flow.nodes[n].name: scope.results[n] for n in last}


def _followed(flow: Flow, level: int) -> set[int]:
    """Of the flow ``level`` flows further out, the nodes that something in ``flow`` waits for."""
    found: set[int] = set()
    for node in flow.nodes:
        found |= {ref.index for ref in node.refs if ref.level == level}
        if level == 0:
            for condition in node.after:
                found |= {w.index for w in (condition.whens if isinstance(condition, Join) else [condition])}
        if node.flow:
            found |= _followed(node.flow, level + 1)
    return found
