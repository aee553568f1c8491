"""From a flow as written to the rows that make it run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from flowrun.core import lanes
from flowrun.core import options as job_options
from flowrun.core import plan as plans
from flowrun.core.flow import Flow, Node
from flowrun.core.ids import Ids
from flowrun.core.job import JobSpec
from flowrun.core.layout import Layout
from flowrun.core.options import SYSTEM_QUEUE, JobOptions
from flowrun.core.plan import DeadlineRow, FlowRow, JobRow, KeyRow, Plan, TestRow
from flowrun.core.rows import END_TYPE, JOIN_TYPE, TYPES, Compiled, Dump, FlowRows, LargeRows
from flowrun.core.states import Deadline, Kind
from flowrun.core.vertex import NOTHING, Asked, EdgeTest, Encode, Vertex
from flowrun.errors import InvalidFlow, LineageTooDeep

__all__ = [
    "END_TYPE",
    "JOIN_TYPE",
    "TYPES",
    "AskedByType",
    "Compiled",
    "Dump",
    "compile_flow",
    "compile_job",
    "compile_jobs",
]

_HANDLER: Final = Kind.HANDLER

_Alike: TypeAlias = "tuple[int, str, Flow]"
"""Jobs that say nothing themselves ask for the same: the (identity of the) defaults of their handler, the type (whose
name may be that of a limit), the flow."""


AskedByType: TypeAlias = "dict[str, tuple[JobOptions, Asked]]"
"""By type: the defaults of the handler (these and no others), and what its jobs ask for that say nothing themselves."""

_UNKNOWN: Final = (None, None)


PAUSE: Final = 1.0
"""Seconds of delay after which a job begins a lineage of its own: it does not outrun anybody."""


class Lineage(NamedTuple):
    """Where jobs that a handler dispatches stand in the row of those that dispatched one another."""

    depth: int
    most: int | None


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
    known: AskedByType | None = None,
    lineage: Lineage | None = None,
) -> Plan:
    """The plan of jobs without a flow, in the order of ``specs``.

    ``known`` is kept from one call to the next: what jobs ask for that say nothing themselves.
    """
    plan = Plan()
    plan.free = plan.jobs
    shared: AskedByType = {} if known is None or dispatched_by is not None else known
    for spec in specs:
        where = f"job {spec.type!r}"
        encoded = encode(spec, None)
        if encoded.sources:
            raise InvalidFlow(f"{where}: a reference to a node's result can only be used in that node's flow")
        defaults, asked = _UNKNOWN if spec.overrides else shared.get(spec.type, _UNKNOWN)
        if asked is None or defaults is not spec.defaults:
            asked = _asked(spec, spec.overrides, where, dump)
            if dispatched_by is not None:
                told = {"dispatched_by": str(dispatched_by)} | _lineage(lineage, spec, asked)
                asked = asked._replace(options=dump({**asked.stored, **told}))
            if not spec.overrides:
                shared[spec.type] = (spec.defaults, asked)
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


def _lineage(lineage: Lineage | None, spec: JobSpec[Any], asked: Asked) -> dict[str, int]:
    """How many jobs have dispatched one another in a row up to this one, as it is stored. Raises LineageTooDeep."""
    if lineage is None or asked.run_at is not None or (asked.delay is not None and asked.delay >= PAUSE):
        return {}
    if lineage.most is not None and lineage.depth > lineage.most:
        raise LineageTooDeep(
            f"job {spec.type!r} is not dispatched: {lineage.depth:,} jobs have dispatched one another in a row, "
            f"without delay, which is more than max_lineage={lineage.most:,} allows. If that has an end, raise "
            "Flowrun(max_lineage=...), or None for no limit; if it is to go on for ever, use a delay, or a schedule"
        )
    return {"lineage": lineage.depth}


def compile_flow(
    flow: Flow, encode: Encode, dump: Dump, mint: Callable[[int], tuple[UUID, Iterable[UUID]]]
) -> Compiled:
    """A whole flow, checked, and its rows as far as they are few.

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
    layout.sorted()
    if len(layout.ends) > 1:
        _check_paths(flow, layout.vertices)
    _Asking(layout, dump).ask()
    flow_id, minted = mint(len(layout.vertices))
    end = layout.ends[flow]
    rows: FlowRows
    ids: Sequence[UUID]
    if isinstance(minted, Ids) and len(minted) >= plans.LARGE:
        minted.stand_out(end, flow_id)
        ids, rows = minted, LargeRows(flow, layout, dump, minted)
    else:
        ids = [*minted]
        ids[end] = flow_id
        rows = FlowRows(flow, layout, dump, ids)
    plan = Plan(
        flows=[FlowRow(ids[at], flow_id, inner.name, inner.tags) for inner, at in layout.ends.items()],
        tests=list(_tests(layout.vertices, ids, dump)),
        deadlines=list(_deadlines(layout, ids)),
    )
    if "key" in flow.keying:
        plan.keys.append(_key(f"flow:{flow.name}", flow_id, flow.keying))
    if isinstance(rows, LargeRows):
        plan.source = rows
    else:
        plan.jobs, plan.edges, plan.blocked = [*rows.jobs()], [*rows.edges()], [*rows.blocked()]
        waiting = {row[0] for row in plan.blocked}
        plan.free = [row for row in plan.jobs if row.id not in waiting]
    return Compiled(plan, flow_id, rows.names())


def _tests(vertices: Sequence[Vertex], ids: Sequence[UUID], dump: Dump) -> Iterator[TestRow]:
    for number, vertex in enumerate(vertices):
        if vertex.said is not NOTHING and vertex.said.more is not None:
            for (parent, condition), test in vertex.said.more.items():
                if test is not None:
                    yield ids[parent], ids[number], condition, _stored_test(test, ids, vertex, dump)


def _deadlines(layout: Layout, ids: Sequence[UUID]) -> Iterator[DeadlineRow]:
    for flow, place in layout.ends.items():
        if flow.deadline is not None:
            yield DeadlineRow(ids[place], Deadline.END, flow.deadline, None)
    for number, vertex in enumerate(layout.vertices):
        if vertex.asked is not None and vertex.asked.start_by is not None:
            yield _start(ids[number], vertex.asked.start_by)


def _defaults(flow: Flow | None) -> JobOptions:
    layers: list[JobOptions] = []
    while flow is not None:
        layers.append(flow.defaults)
        flow = flow.parent
    return job_options.merge(*layers)


def _check_paths(root: Flow, vertices: Sequence[Vertex]) -> None:
    names: set[str] = set()
    for vertex in vertices:
        if vertex.node is not None:
            if vertex.name in names:
                raise InvalidFlow(f"flow {root.name!r} has two nodes named {vertex.name!r}; give one another name=")
            names.add(vertex.name)


def _key(scope: str, id: UUID, options: JobOptions) -> KeyRow:
    key = options.get("key", "")
    return KeyRow(scope, key, id, options.get("on_conflict", "existing"), options.get("key_ttl"))


def _asked(spec: JobSpec[Any], explicit: JobOptions, where: str, dump: Dump) -> Asked:
    explicit = _with_those_of_queue(spec, explicit)
    merged = job_options.merge(explicit, spec.defaults, job_options.DEFAULTS)
    job_options.check_together(merged, where)
    stored = job_options.to_stored(explicit, where)
    if "start_by" in merged:
        stored["start_by"] = True
    if tags := merged.get("tags"):
        stored["tags"] = list(tags)  # the handler's, too: it is found by them where nobody knows the handler
    return Asked(
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


def _stored_test(test: EdgeTest, ids: Sequence[UUID], vertex: Vertex, dump: Dump) -> str:
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


class _Asking:
    """What each vertex asks for. Nodes that say nothing themselves share what their handler and their flow ask for."""

    def __init__(self, layout: Layout, dump: Dump) -> None:
        self._layout = layout
        self._dump = dump
        self._defaults = {flow: _defaults(flow) for flow in layout.ends}
        self._shared: dict[_Alike, Asked] = {}

    def ask(self) -> None:
        """Ask all. Raises InvalidFlow for what a node cannot ask for."""
        shared, dump = self._shared, self._dump
        for vertex in self._layout.vertices:
            node, flow = vertex.node, vertex.flow
            if vertex.said is not NOTHING and (bound := vertex.said.bound) is not None:
                vertex.say(bindings=dump(bound.bindings))
            if vertex.kind is not _HANDLER or node is None or flow is None or (spec := node.spec) is None:
                vertex.asked = self._own(vertex)
                continue
            asked = None
            if node.optional is None and not spec.overrides:
                asked = shared.get((id(spec.defaults), spec.type, flow))
            vertex.asked = asked or self._ask(node, spec, flow, vertex.name)

    def _own(self, vertex: Vertex) -> Asked:
        """What one of flowrun's own asks for."""
        node = vertex.node
        # A verdict that is not good spoils nothing: it says what has spoiled the flow already.
        optional = bool(node and node.optional) or vertex.kind is Kind.VERDICT
        delay = None if node is None or node.spec is None else node.spec.overrides.get("delay")
        stored: dict[str, Any] = {}
        if vertex.kind is Kind.MAP:
            stored["item"] = self._item(vertex)
        return Asked(SYSTEM_QUEUE, 0, optional, delay, None, None, stored)

    def _item(self, vertex: Vertex) -> dict[str, Any]:
        """What each job of a map is like."""
        node = cast("Node[Any]", vertex.node)
        spec = cast("JobSpec[Any]", cast("JobSpec[Any]", node.spec).item)
        asked = self._ask(node, spec, cast("Flow", vertex.flow), vertex.name)
        return {
            "type": spec.type, "queue": asked.queue, "priority": asked.priority, "optional": asked.optional,
            "delay": asked.delay, "run_at": asked.run_at, "options": asked.stored,
        }  # fmt: skip

    def _ask(self, node: Node[Any], spec: JobSpec[Any], flow: Flow, name: str) -> Asked:
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
