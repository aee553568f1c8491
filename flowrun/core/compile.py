"""From a flow as written to the rows that make it run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from flowrun.core import lanes
from flowrun.core import options as job_options
from flowrun.core.flow import GATE_TYPE, MAP_TYPE, SLEEP_TYPE, Flow, Node
from flowrun.core.job import JobSpec
from flowrun.core.layout import Layout
from flowrun.core.options import SYSTEM_QUEUE, JobOptions
from flowrun.core.plan import DeadlineRow, EdgeRow, FlowRow, JobRow, KeyRow, Plan
from flowrun.core.states import Deadline, Kind
from flowrun.core.vertex import NO_ARGUMENTS, EdgeTest, Encode, Vertex
from flowrun.errors import InvalidFlow

END_TYPE = "flowrun.end"
JOIN_TYPE = "flowrun.join"

TYPES: Final = {
    Kind.END: END_TYPE,
    Kind.JOIN: JOIN_TYPE,
    Kind.GATE: GATE_TYPE,
    Kind.SLEEP: SLEEP_TYPE,
    Kind.MAP: MAP_TYPE,
    Kind.VERDICT: "flowrun.verdict",
}
"""The types of the jobs that flowrun runs itself."""

_HANDLER: Final = Kind.HANDLER

_Alike: TypeAlias = "tuple[int, str, Flow | None]"
"""Jobs that say nothing themselves ask for the same: the (identity of the) defaults of their handler, the type (whose
name may be that of a limit), the flow."""

Dump = Callable[[Any], str]


@dataclass(slots=True)
class Compiled:
    """A plan, and where the nodes are in it."""

    plan: Plan
    flow_id: UUID
    names: dict[str, tuple[UUID, str]]
    """By name: id and type."""


def compile_job(
    spec: JobSpec[Any], encode: Encode, dump: Dump, mint: Callable[[], UUID], dispatched_by: UUID | None = None
) -> Plan:
    """The plan of a single job, which has no flow and pays for none."""
    return compile_jobs([spec], encode, dump, mint, dispatched_by)


def compile_jobs(
    specs: Iterable[JobSpec[Any]],
    encode: Encode,
    dump: Dump,
    mint: Callable[[], UUID],
    dispatched_by: UUID | None = None,
) -> Plan:
    """The plan of jobs without a flow, in the order of ``specs``."""
    plan = Plan()
    plan.free = plan.jobs
    shared: dict[_Alike, _Asked] = {}
    for spec in specs:
        where = f"job {spec.type!r}"
        encoded = encode(spec, None)
        if encoded.sources:
            raise InvalidFlow(f"{where}: a reference to a node's result can only be used in that node's flow")
        asked = None if spec.overrides else shared.get((id(spec.defaults), spec.type, None))
        if asked is None:
            asked = _asked(spec, spec.overrides, where, dump)
            if dispatched_by is not None:
                asked = asked._replace(options=dump({**asked.stored, "dispatched_by": str(dispatched_by)}))
            if not spec.overrides:
                shared[id(spec.defaults), spec.type, None] = asked
        queue, priority, optional, delay, run_at, options, _, start_by = asked
        row = JobRow(
            mint(), None, _HANDLER, None, queue, spec.type, encoded.args, None, None, priority, optional, delay, run_at,
            options,
        )  # fmt: skip
        plan.jobs.append(row)
        if start_by is not None:
            plan.deadlines.append(_start(row.id, start_by))
        if "key" in spec.overrides or "key" in spec.defaults:
            plan.keys.append(_key(f"job:{spec.type}", row.id, job_options.merge(spec.overrides, spec.defaults)))
    return plan


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
    for inner, end in layout.ends.items():
        has = "key" if "key" in inner.keying else "retention" if inner.retention is not None else None
        if inner is not flow and has:
            raise InvalidFlow(
                f"node {layout.vertices[end].name!r} of flow {flow.name!r} has a {has}=; only the outermost flow can"
            )
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
    rows = _RowMaker(layout, ids, dump, root)
    plan = Plan(flows=[FlowRow(id, flow_id, flow.name, flow.tags) for flow, id in rows.ends.items()])
    names: dict[str, tuple[UUID, str]] = {}
    if "key" in root.keying:
        plan.keys.append(_key(f"flow:{root.name}", flow_id, root.keying))
    children: list[list[EdgeRow]] = [[] for _ in ids]
    for id, vertex in zip(ids, layout.vertices, strict=True):
        row = rows.make(id, vertex)
        plan.jobs.append(row)
        if parents := vertex.parents:
            for (parent, condition), test in parents.items():
                if test is None:
                    children[parent].append((ids[parent], id, condition))
                else:
                    plan.tests.append((ids[parent], id, condition, _stored_test(test, ids, vertex, dump)))
            total = len(parents)
            plan.blocked.append((id, total if vertex.need is None else vertex.need, total))
        else:
            plan.free.append(row)
        if vertex.node is not None:
            if vertex.name in names:
                raise InvalidFlow(f"flow {root.name!r} has two nodes named {vertex.name!r}; give one another name=")
            names[vertex.name] = (id, row.type)
    # By parent, as their index has them: written so they cost the server a third less, and are read from fewer pages.
    plan.edges = list(chain.from_iterable(children))
    plan.deadlines = rows.deadlines
    return Compiled(plan, flow_id, names)


def _key(scope: str, id: UUID, options: JobOptions) -> KeyRow:
    key = options.get("key", "")
    return KeyRow(scope, key, id, options.get("on_conflict", "existing"), options.get("key_ttl"))


class _Asked(NamedTuple):
    """What a job asks for, merged from all who have a say: the columns that come of it."""

    queue: str
    """Or a lane of it."""
    priority: int
    optional: bool
    delay: float | None
    run_at: datetime | None
    options: str | None
    """``stored`` as JSON."""
    stored: dict[str, Any]
    """The options that only the worker reads."""
    start_by: datetime | float | None = None


def _asked(spec: JobSpec[Any], explicit: JobOptions, where: str, dump: Dump) -> _Asked:
    explicit = _with_those_of_queue(spec, explicit)
    merged = job_options.merge(explicit, spec.defaults, job_options.DEFAULTS)
    job_options.check_together(merged, where)
    stored = job_options.to_stored(explicit, where)
    if "start_by" in merged:
        stored["start_by"] = True
    if tags := merged.get("tags"):
        stored["tags"] = list(tags)  # the handler's, too: it is found by them where nobody knows the handler
    return _Asked(
        lanes.place(merged.get("queue", "default"), spec.type, merged),
        merged.get("priority", 5),
        merged.get("optional", False),
        merged.get("delay"),
        merged.get("run_at"),
        dump(stored) if stored else None,
        stored,
        merged.get("start_by"),
    )


def _with_those_of_queue(spec: JobSpec[Any], explicit: JobOptions) -> JobOptions:
    """The options that are said, and those of the queue where nobody else says any.

    They are stored with the job: a worker knows what its handlers say, and not what the dispatching program does.
    """
    of_queues = spec.of_queues
    if not of_queues:
        return explicit
    of_queue = of_queues.get(explicit.get("queue") or spec.defaults.get("queue") or "default", {})
    return job_options.merge(explicit, {name: of for name, of in of_queue.items() if name not in spec.defaults})


def _start(id: UUID, by: datetime | float) -> DeadlineRow:
    moment = by if isinstance(by, datetime) else None
    return DeadlineRow(id, Deadline.START, None if isinstance(by, datetime) else by, moment)


def _stored_test(test: EdgeTest, ids: list[UUID], vertex: Vertex, dump: Dump) -> str:
    stored: dict[str, Any] = {"on": int(test.on)}
    if test.test is not None:
        stored |= {"path": list(test.test.path), "op": test.test.op, "value": test.test.value}
        if test.choice:
            stored["choice"] = True
    if test.rivals:
        stored["rivals"] = [str(ids[rival]) for rival in test.rivals]
    try:
        return dump(stored)
    except Exception as error:  # noqa: BLE001 - whatever the given `dump` raises
        raise InvalidFlow(f"node {vertex.name!r}: what it compares a result with cannot be stored: {error}") from None


class _RowMaker:
    """Rows from vertices. Nodes that say nothing themselves share what their handler and their flow ask for."""

    def __init__(self, layout: Layout, ids: list[UUID], dump: Dump, root: Flow) -> None:
        self.ends = {flow: ids[place] for flow, place in layout.ends.items()}
        self._root = root
        self._layout = layout
        self._ids = ids
        self._dump = dump
        self._defaults = {flow: _defaults(flow) for flow in self.ends}
        self._shared: dict[_Alike, _Asked] = {}
        self.deadlines = [
            DeadlineRow(id, Deadline.END, flow.deadline, None)
            for flow, id in self.ends.items()
            if flow.deadline is not None
        ]

    def make(self, id: UUID, vertex: Vertex) -> JobRow:
        """The row of ``jobs`` for a vertex."""
        flow = vertex.flow
        args, source_nodes, bound, _ = vertex.encoded or NO_ARGUMENTS
        type, asked = self._work(vertex)
        queue, priority, optional, delay, run_at, options, _, start_by = asked
        if start_by is not None:
            self.deadlines.append(_start(id, start_by))
        if vertex.kind is not _HANDLER or vertex.stays or vertex.need is not None:
            options = self._options(vertex, asked)
        sources, bindings, parents = None, None, None
        if bound:
            place, ids = self._layout.place, self._ids
            sources, bindings = [ids[place[node]] for node in source_nodes], self._dump(bound)
        if vertex.shown or vertex.sinks is not None:
            parents = self._parents(vertex)
        # Not JobRow(...): with so many fields that costs thrice as much.
        return tuple.__new__(
            JobRow,
            (
                id, None if flow is None else self.ends[flow], vertex.kind, vertex.name, queue, type, args, sources,
                bindings, priority, optional, delay, run_at, options, parents,
            ),
        )  # fmt: skip

    def _parents(self, vertex: Vertex) -> list[UUID]:
        """What is recorded of what a job waits for: all, and of the end of a flow its last nodes."""
        if vertex.sinks is not None:
            return [self._ids[place] for place in vertex.sinks]
        return list(dict.fromkeys(self._ids[place] for place, _ in vertex.parents))

    def _work(self, vertex: Vertex) -> tuple[str, _Asked]:
        node, flow = vertex.node, vertex.flow
        if vertex.kind is _HANDLER and node is not None and flow is not None and (spec := node.spec) is not None:
            asked = None
            if node.optional is None and not spec.overrides:
                asked = self._shared.get((id(spec.defaults), spec.type, flow))
            return spec.type, asked or self._ask(node, spec, flow, vertex.name)
        # A verdict that is not good spoils nothing: it says what has spoiled the flow already.
        optional = bool(node and node.optional) or vertex.kind is Kind.VERDICT
        delay = None if node is None or node.spec is None else node.spec.overrides.get("delay")
        return TYPES[vertex.kind], _Asked(SYSTEM_QUEUE, 0, optional, delay, None, None, {})

    def _options(self, vertex: Vertex, asked: _Asked) -> str | None:
        """What is stored as a job's options, and beside them, where it is not like most."""
        more = dict(asked.stored)
        if vertex.stays:
            more["stays"] = True
        if vertex.after_end:
            more["callback"] = True
        if vertex.need is not None:
            more["need"] = vertex.need
        if vertex.compensates is not None:
            more["compensates"] = str(self._ids[self._layout.place[vertex.compensates]])
        if vertex.kind is Kind.END and vertex.flow is None and self._layout.verdict is not None:
            more["verdict"] = str(self._ids[self._layout.verdict])
        if vertex.kind is Kind.END and vertex.flow is None and self._root.retention is not None:
            more["retention"] = job_options.stored_retention(self._root.retention)
        if vertex.kind is Kind.MAP:
            more["item"] = self._item(vertex)
        return self._dump(more) if more else None

    def _item(self, vertex: Vertex) -> dict[str, Any]:
        """What each job of a map is like."""
        node = cast("Node[Any]", vertex.node)
        spec = cast("JobSpec[Any]", cast("JobSpec[Any]", node.spec).item)
        asked = self._ask(node, spec, cast("Flow", vertex.flow), vertex.name)
        return {
            "type": spec.type, "queue": asked.queue, "priority": asked.priority, "optional": asked.optional,
            "delay": asked.delay, "run_at": asked.run_at, "options": asked.stored,
        }  # fmt: skip

    def _ask(self, node: Node[Any], spec: JobSpec[Any], flow: Flow, name: str) -> _Asked:
        if "key" in spec.overrides or "key" in spec.defaults:
            raise InvalidFlow(
                f"node {name!r} has a key=; a key belongs to a job dispatched alone, or to the whole flow: "
                "app.flow(name, key=...)"
            )
        if "retention" in spec.overrides:
            raise InvalidFlow(
                f"node {name!r} has a retention=; a flow is kept as a whole: app.flow(name, retention=...)"
            )
        if node.optional is not None or spec.overrides:
            said: JobOptions = {} if node.optional is None else {"optional": node.optional}
            explicit = job_options.merge(said, spec.overrides, self._defaults[flow])
            return _asked(spec, explicit, f"node {name!r}", self._dump)
        asked = _asked(spec, self._defaults[flow], f"node {name!r}", self._dump)
        self._shared[id(spec.defaults), spec.type, flow] = asked
        return asked
