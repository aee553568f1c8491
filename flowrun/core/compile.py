"""From a flow as written to the rows that make it run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from flowrun.core import options as job_options
from flowrun.core.flow import Flow, Node
from flowrun.core.job import JobSpec
from flowrun.core.layout import NO_ARGUMENTS, Encode, Encoded, Layout, Vertex
from flowrun.core.options import SYSTEM_QUEUE, JobOptions
from flowrun.core.plan import FlowRow, JobRow, Plan
from flowrun.core.states import Kind
from flowrun.errors import InvalidFlow

END_TYPE = "flowrun.end"
JOIN_TYPE = "flowrun.join"

Dump = Callable[[Any], str]


@dataclass(slots=True)
class Compiled:
    """A plan, and where the nodes are in it."""

    plan: Plan
    flow_id: UUID
    names: dict[str, tuple[UUID, str]]
    """By name: id and type."""


def compile_job(spec: JobSpec[Any], encode: Encode, dump: Dump, mint: Callable[[], UUID]) -> Plan:
    """The plan of a single job, which has no flow and pays for none."""
    where = f"job {spec.type!r}"
    encoded = encode(spec, None)
    if encoded.sources:
        raise InvalidFlow(f"{where}: a reference to a node's result can only be used in that node's flow")
    row = JobRow(mint(), None, 0, None, *_asked(spec, spec.overrides, where, dump).row(spec.type, encoded, None, dump))
    return Plan(jobs=[row], free=[row])


def compile_flow(
    flow: Flow, encode: Encode, dump: Dump, mint: Callable[[int], tuple[UUID, Iterable[UUID]]]
) -> Compiled:
    """The plan of a whole flow.

    ``mint(n)`` gives the flow's id and ``n`` ids for its jobs, growing. Raises InvalidFlow or InvalidArguments, with
    the nodes named, before anything is written.
    """
    if flow.parent is not None:
        raise InvalidFlow(f"flow {flow.name!r} is a node of flow {flow.parent.name!r}; dispatch that one")
    layout = Layout(encode)
    layout.lay(flow)
    return _rows(flow, layout.sorted(), dump, mint)


def _defaults(flow: Flow | None) -> JobOptions:
    layers: list[JobOptions] = []
    while flow is not None:
        layers.append(flow.defaults)
        flow = flow.parent
    return job_options.merge(*layers)


def _rows(root: Flow, layout: Layout, dump: Dump, mint: Callable[[int], tuple[UUID, Iterable[UUID]]]) -> Compiled:
    flow_id, minted = mint(len(layout.vertices))
    ids = list(minted)
    ids[layout.ends[root]] = flow_id
    rows = _RowMaker(layout, ids, dump)
    plan = Plan(flows=[FlowRow(id, flow_id, flow.name, flow.tags) for flow, id in rows.ends.items()])
    names: dict[str, tuple[UUID, str]] = {}
    jobs, edges, blocked, free = plan.jobs, plan.edges, plan.blocked, plan.free
    for id, vertex in zip(ids, layout.vertices, strict=True):
        row = rows.make(id, vertex)
        jobs.append(row)
        if parents := vertex.parents:
            for parent, condition in parents:
                edges.append((ids[parent], id, condition))
            total = len(parents)
            blocked.append((id, total if vertex.need is None else vertex.need, total))
        else:
            free.append(row)
        if vertex.node is not None:
            if vertex.name in names:
                raise InvalidFlow(f"flow {root.name!r} has two nodes named {vertex.name!r}; give one another name=")
            names[vertex.name] = (id, row.type)
    return Compiled(plan, flow_id, names)


class _Asked(NamedTuple):
    """What a job asks for, merged from all who have a say: the columns that come of it."""

    queue: str
    priority: int
    optional: bool
    delay: float | None
    run_at: datetime | None
    options: str | None

    def row(self, type: str, encoded: Encoded, sources: list[UUID] | None, dump: Dump) -> tuple[Any, ...]:
        """The columns of a job from its queue on."""
        bindings = dump(encoded.bindings) if encoded.bindings else None
        return (
            self.queue, type, encoded.args, sources, bindings, self.priority, self.optional, self.delay, self.run_at,
            self.options,
        )  # fmt: skip


def _asked(spec: JobSpec[Any], explicit: JobOptions, where: str, dump: Dump) -> _Asked:
    merged = job_options.merge(explicit, spec.defaults, job_options.DEFAULTS)
    stored = job_options.to_stored(explicit, where)
    return _Asked(
        merged.get("queue", "default"),
        merged.get("priority", 5),
        merged.get("optional", False),
        merged.get("delay"),
        merged.get("run_at"),
        dump(stored) if stored else None,
    )


class _RowMaker:
    """Rows from vertices. Nodes that say nothing themselves share what their handler and their flow ask for."""

    def __init__(self, layout: Layout, ids: list[UUID], dump: Dump) -> None:
        self.ends = {flow: ids[place] for flow, place in layout.ends.items()}
        self._layout = layout
        self._ids = ids
        self._dump = dump
        self._defaults = {flow: _defaults(flow) for flow in self.ends}
        self._shared: dict[tuple[int, Flow], _Asked] = {}

    def make(self, id: UUID, vertex: Vertex) -> JobRow:
        """The row of ``jobs`` for a vertex."""
        flow = vertex.flow
        flow_id = self.ends[flow] if flow is not None else None
        encoded = vertex.encoded or NO_ARGUMENTS
        place, ids = self._layout.place, self._ids
        sources = [ids[place[node]] for node in encoded.sources] if encoded.sources else None
        if vertex.kind is not Kind.HANDLER:
            type = END_TYPE if vertex.kind is Kind.END else JOIN_TYPE
            optional = bool(vertex.node and vertex.node.optional)
            asked = _Asked(SYSTEM_QUEUE, 0, optional, None, None, None)
        else:
            node = cast("Node[Any]", vertex.node)
            spec = cast("JobSpec[Any]", node.spec)
            type = spec.type
            asked = self._ask(node, spec, cast("Flow", flow), vertex.name)
        return JobRow(id, flow_id, vertex.kind, vertex.name, *asked.row(type, encoded, sources, self._dump))

    def _ask(self, node: Node[Any], spec: JobSpec[Any], flow: Flow, name: str) -> _Asked:
        if node.optional is not None or spec.overrides:
            said: JobOptions = {} if node.optional is None else {"optional": node.optional}
            explicit = job_options.merge(said, spec.overrides, self._defaults[flow])
            return _asked(spec, explicit, f"node {name!r}", self._dump)
        asked = self._shared.get((id(spec.defaults), flow))
        if asked is None:
            asked = _asked(spec, self._defaults[flow], f"node {name!r}", self._dump)
            self._shared[id(spec.defaults), flow] = asked
        return asked
