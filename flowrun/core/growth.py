"""Nodes added to a flow that runs: compiled like a flow of their own, then tied to the stored one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from flowrun.core.compile import JOIN_TYPE, Dump, compile_flow
from flowrun.core.flow import Flow, Node
from flowrun.core.job import JobSpec
from flowrun.core.node import Join, When
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.core.plan import JobRow, Plan
from flowrun.core.references import references
from flowrun.core.states import FIRST_TEST, Condition, Kind
from flowrun.core.vertex import Encode

OUTSIDE_TYPE = "flowrun.outside"
"""Of nodes that stand for a stored one while new ones are compiled; never stored."""


@dataclass(slots=True)
class Growth:
    """New nodes for a stored flow."""

    flow_id: UUID
    plan: Plan
    outside: dict[UUID, str] = field(default_factory=dict)
    """The stored nodes that new ones wait for: what stands for them in the plan, and their names."""
    unnamed: set[UUID] = field(default_factory=set)
    """New nodes whose name nobody chose: another is found where it is taken."""
    loose: list[UUID] = field(default_factory=list)
    """New nodes that the flow's end waits for, and nothing else that is stored."""
    spawner: UUID | None = None
    """The running job that grows its own flow: its children wait for what it spawned."""
    tied: list[UUID] = field(default_factory=list)
    """What its children wait for."""
    joins: dict[int, UUID] = field(default_factory=dict)
    """What they wait for instead of the spawner: by condition, the join that asks the same of all ``tied``."""

    @property
    def way(self) -> Way | None:
        """What stands for the spawner from now on; None: the spawner itself does."""
        return Way(self.spawner, self.joins) if self.spawner is not None and self.joins else None


def copied(growth: Growth) -> Growth:
    """The same, to be changed while it is written: a transaction may have to begin anew."""
    plan = growth.plan
    return replace(
        growth,
        plan=replace(
            plan,
            jobs=[*plan.jobs],
            edges=[*plan.edges],
            blocked=[*plan.blocked],
            flows=[*plan.flows],
            tests=[*plan.tests],
            free=[*plan.free],
        ),
        loose=[*growth.loose],
        tied=[*growth.tied],
        joins=dict(growth.joins),
        unnamed={*growth.unnamed},
    )


class Way(NamedTuple):
    """A job that has spawned, and the joins that stand for it and what it spawned."""

    job: UUID
    joins: Mapping[int, UUID]
    """By condition."""

    def parent(self, condition: int) -> UUID:
        """Where an edge with ``condition`` leads from. Its failure, and what undoes it, are the job's own affair."""
        if condition in (Condition.SUCCEEDED, Condition.FINISHED, Condition.SUCCEEDED_OR_CANCELLED):
            return self.joins.get(condition, self.joins.get(Condition.SUCCEEDED, self.job))
        return self.job


@dataclass(slots=True)
class Expansion:
    """What a map becomes: its items, which it then waits for."""

    id: UUID
    flow_id: UUID
    items: list[JobRow]
    args: str
    """The map's own arguments from now on (JSON)."""


class Parked(NamedTuple):
    """A gate that is reached."""

    signal: str
    timeout: float | None
    default: str | None
    """Its result (JSON) when its time is over; None: it fails."""
    taken: Callable[[UUID, str], str] | None = None
    """From the outermost flow and a signal's value, as stored, to the gate's result; None: the value itself."""


@dataclass(slots=True)
class Outbox:
    """What a handler dispatched and spawned: written when its attempt is settled as a success, and only then."""

    plans: list[Plan] = field(default_factory=list)
    growth: Growth | None = None

    @property
    def grows(self) -> UUID | None:
        """The flow it adds nodes to."""
        return None if self.growth is None else self.growth.flow_id


class Asks(NamedTuple):
    """A test as it is stored with an edge."""

    parent: UUID
    child: UUID
    number: int
    test: Mapping[str, Any]


def bound(growth: Growth) -> set[UUID]:
    """The new nodes that the spawner's children wait for, by any way."""
    parents: dict[UUID, list[UUID]] = {}
    for parent, child, _ in [*growth.plan.edges, *(row[:3] for row in growth.plan.tests)]:
        parents.setdefault(child, []).append(parent)
    found, stack = set(growth.tied), list(growth.tied)
    while stack:
        fresh = set(parents.get(stack.pop(), ())) - found
        found |= fresh
        stack += fresh
    return found


def add_join(growth: Growth, condition: Condition, id: UUID) -> None:
    """A join that the spawner's children wait for instead of it, where they ask for ``condition``."""
    shown = f"(spawned: {condition.name.lower().replace('_', ' ')})"
    args = f'{{"of":"{growth.spawner}","on":{int(condition)}}}'
    growth.joins[condition] = id
    growth.plan.jobs.append(_join(id, growth.flow_id, shown, args, growth.tied))
    growth.plan.edges += [(node, id, condition) for node in growth.tied]
    growth.plan.blocked.append((id, len(growth.tied), len(growth.tied)))


def look_at_both(growth: Growth, asks: Asks, way: Way, id: UUID, dump: Dump) -> Asks:
    """A test looks at the job alone: a join of its own besides waits for what the job spawned. The edge from that join.

    One edge becomes one edge, also where not all of them are needed: the child's counters stay as they are.
    """
    test = asks.test
    look = {name: test[name] for name in ("on", "path", "op", "value")}
    growth.plan.jobs.append(_join(id, growth.flow_id, "(spawned, and its result)", "{}", [way.job]))
    growth.plan.tests.append((way.job, id, FIRST_TEST, dump(look)))
    growth.plan.edges.append((way.parent(test["on"]), id, Condition.SUCCEEDED))
    growth.plan.blocked.append((id, 2, 2))
    rest = {name: test[name] for name in ("choice", "rivals") if name in test}
    return Asks(id, asks.child, asks.number, {"on": int(Condition.SUCCEEDED), **rest})


def _join(id: UUID, flow_id: UUID, name: str, args: str, parents: list[UUID]) -> JobRow:
    row = (SYSTEM_QUEUE, JOIN_TYPE, args, None, None, 0, False, None, None, None, parents)
    return JobRow(id, flow_id, Kind.JOIN, name, *row)


def outside(fragment: Flow, name: str) -> Node[Any]:
    """The node of ``fragment`` that stands for the stored node ``name``."""
    shown = f"(stored) {name}"
    for node in fragment.nodes:
        if node.name == shown:
            return node
    return fragment.add(JobSpec[Any](OUTSIDE_TYPE), name=shown)


def is_outside(node: Node[Any]) -> bool:
    """Whether a node stands for a stored one."""
    return node.spec is not None and node.spec.type == OUTSIDE_TYPE


def compile_growth(
    fragment: Flow,
    flow_id: UUID,
    encode: Encode,
    dump: Dump,
    mint: Callable[[int], tuple[UUID, Iterable[UUID]]],
    *,
    prefix: str = "",
    spawner: tuple[UUID, str] | None = None,
    detached: Collection[Node[Any]] = (),
) -> Growth:
    """The nodes of ``fragment``, to be added to the stored flow ``flow_id``.

    ``spawner`` is the id and name (without ``prefix``) of the running job that grows its own flow: the nodes come after
    it, and its children come after them, but for those ``detached``. Without it, only the flow's end waits for them.
    """
    _stand_in(fragment)
    if spawner is not None:
        parent = outside(fragment, spawner[1])
        for node in fragment.nodes:
            if not is_outside(node) and not node.after and not _uses_results(node):
                node.after = (parent,)
    compiled = compile_flow(fragment, encode, dump, mint)
    names = compiled.names
    stand_ins = {
        names[node.name][0]: prefix + node.name.removeprefix("(stored) ") for node in fragment.nodes if is_outside(node)
    }
    unnamed = {names[node.name][0] for node in fragment.nodes if not node.named}
    apart = {names[node.name][0] for node in detached}
    growth = Growth(flow_id, compiled.plan, stand_ins, unnamed, spawner=spawner and spawner[0])
    _attach(growth, compiled.flow_id, prefix)
    own = [row.id for row in growth.plan.jobs if row.flow_id == flow_id and row.id != compiled.flow_id]
    growth.tied = [id for id in own if id not in apart and spawner is not None]
    if growth.tied:
        add_join(growth, Condition.FINISHED, compiled.flow_id)
        add_join(growth, Condition.SUCCEEDED, mint(1)[0])
    growth.loose = own if spawner is None else [id for id in own if id in apart]
    return growth


def _stand_in(fragment: Flow) -> None:
    """Names of stored nodes become nodes that stand for them. A name that was given to a new node is that one's."""
    named = {node.name for node in fragment.nodes if node.named}

    def meant(when: When) -> When:
        if isinstance(when.node, str) and when.node not in named:
            return When(outside(fragment, when.node), when.condition, when.test)
        return when

    for node in list(fragment.nodes):
        node.after = [
            Join(one.count, tuple(map(meant, one.whens)), one.race)
            if isinstance(one, Join)
            else (one if isinstance(one, Node) else meant(one))
            for one in node.after
        ]


def _uses_results(node: Node[Any]) -> bool:
    return node.spec is not None and bool(references([*node.spec.args, *node.spec.kwargs.values()]))


def _attach(growth: Growth, end: UUID, prefix: str) -> None:
    """Rows of the stored flow: no flow and no end of their own, and nothing in the place of stand-ins."""
    plan, stand_ins = growth.plan, growth.outside
    plan.flows = [flow for flow in plan.flows if flow.id != end]
    free = {row.id for row in plan.free}
    plan.jobs = [
        row._replace(flow_id=growth.flow_id if row.flow_id == end else row.flow_id, name=f"{prefix}{row.name}")
        for row in plan.jobs
        if row.id not in stand_ins and row.id != end
    ]
    plan.free = [row for row in plan.jobs if row.id in free]
    plan.edges = [edge for edge in plan.edges if edge[1] != end]
    plan.blocked = [row for row in plan.blocked if row[0] != end]
