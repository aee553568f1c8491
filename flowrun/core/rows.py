"""The rows of a flow that was laid out and found right: nothing can go wrong with them any more, so they need not exist
before they are written. A large flow has many."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, NoReturn
from uuid import UUID

from flowrun.core import options as job_options
from flowrun.core.flow import GATE_TYPE, MAP_TYPE, SLEEP_TYPE, Flow
from flowrun.core.ids import Ids
from flowrun.core.layout import Layout
from flowrun.core.plan import BlockedRow, EdgeRow, JobRow, Plan
from flowrun.core.states import Kind
from flowrun.core.vertex import NOTHING, Vertex

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

Dump = Callable[[Any], str]

WINDOW = 4_096
"""Vertices whose edges are sorted by parent together."""

_HANDLER: Final = Kind.HANDLER


class Nodes(MutableMapping[str, tuple[UUID, str]]):
    """Nodes by name: id and type. Of a large flow the table is much to have, and perhaps nobody looks anything up."""

    def __init__(
        self,
        ids: Sequence[UUID],
        places: list[int],
        names: list[str],
        types: list[str],
        items: Mapping[str, str] | None = None,
    ) -> None:
        self._columns = ids, places, names, types
        self.item_types: Mapping[str, str] = items or {}
        """Of each map, by its name: the type of the jobs that it becomes."""

    @cached_property
    def _table(self) -> dict[str, tuple[UUID, str]]:
        ids, *columns = self._columns
        return {name: (ids[at], type) for at, name, type in zip(*columns, strict=True)}

    def __getitem__(self, name: str) -> tuple[UUID, str]:
        return self._table[name]

    def __setitem__(self, name: str, node: tuple[UUID, str]) -> None:
        self._table[name] = node

    def __delitem__(self, name: str) -> None:
        del self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


@dataclass(slots=True)
class Compiled:
    """A flow that can be written."""

    draft: Plan
    """Its plan, as it is: with a source as long as nobody has asked for all its rows at once."""
    flow_id: UUID
    names: Nodes

    @property
    def plan(self) -> Plan:
        """All its rows at once."""
        return self.draft.made()

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.draft = plan


class FlowRows:
    """Rows from vertices."""

    def __init__(self, root: Flow, layout: Layout, dump: Dump, ids: Sequence[UUID]) -> None:
        self._root = root
        self._layout = layout
        self._vertices = layout.vertices
        self._dump = dump
        self._ids = ids
        self._ends = {flow: ids[place] for flow, place in layout.ends.items()}

    @property
    def size(self) -> int:
        """How many jobs there are."""
        return len(self._vertices)

    @cached_property
    def _free(self) -> list[JobRow]:
        return [self._job(at) for at, vertex in enumerate(self._vertices) if not vertex.total]

    def free(self) -> list[JobRow]:
        """The jobs that wait for no other."""
        return self._free

    def jobs(self) -> Iterator[JobRow]:
        """The rows of ``jobs``."""
        self._ids = [*self._ids]  # each is asked for more than once
        return map(self._job, range(len(self._vertices)))

    def edges(self) -> Iterator[EdgeRow]:
        """The rows of ``edges``, but for tests.

        By parent, as their index has them: written so they cost the server a third less, and are read from fewer pages.
        """
        ids = self._ids
        children: list[list[EdgeRow]] = [[] for _ in ids]
        for id, vertex in zip(ids, self._vertices, strict=True):
            on = vertex.on
            for parent in vertex.parents:
                children[parent].append((ids[parent], id, on))
            if vertex.said.more is not None:
                for (parent, condition), test in vertex.said.more.items():
                    if test is None:
                        children[parent].append((ids[parent], id, condition))
        return chain.from_iterable(children)

    def blocked(self) -> Iterator[BlockedRow]:
        """The rows of ``blocked``."""
        for id, vertex in zip(self._ids, self._vertices, strict=True):
            if vertex.said is NOTHING:
                if total := len(vertex.parents):
                    yield id, total, total
            elif total := vertex.total:
                yield id, total if vertex.said.need is None else vertex.said.need, total

    def names(self) -> Nodes:
        """The nodes by name, without holding on to all the rest."""
        nodes = [vertex for vertex in self._vertices if vertex.node is not None]
        places = [vertex.node.place for vertex in nodes if vertex.node is not None]
        items = {vertex.name: item for vertex in nodes if vertex.kind is Kind.MAP and (item := _item_type(vertex))}
        return Nodes(self._ids, places, [vertex.name for vertex in nodes], [*map(type_of, nodes)], items)

    def _job(self, number: int) -> JobRow:
        """The row of ``jobs`` for a vertex."""
        vertex = self._vertices[number]
        flow, said = vertex.flow, vertex.said
        queue, priority, optional, delay, run_at, options, _, _ = vertex.asked or _nobody_asked(vertex)
        sources, parents = None, None
        if said is not NOTHING or vertex.kind is not _HANDLER:
            if vertex.kind is not _HANDLER or said.stays or said.need is not None:
                options = self._options(vertex)
            if said.bound is not None:
                sources = [self._ids[node.place] for node in said.bound.sources]
        if vertex.shown or said.sinks is not None:
            parents = self._parents(vertex)
        # Not JobRow(...): with so many fields that costs thrice as much.
        return tuple.__new__(
            JobRow,
            (
                self._ids[number], None if flow is None else self._ends[flow], vertex.kind, vertex.name, queue,
                type_of(vertex), vertex.args, sources, said.bindings, priority, optional, delay, run_at, options,
                parents,
            ),
        )  # fmt: skip

    def _parents(self, vertex: Vertex) -> list[UUID]:
        """What is recorded of what a job waits for: all, and of the end of a flow its last nodes."""
        if vertex.said.sinks is not None:
            return [self._ids[place] for place in vertex.said.sinks]
        return list(dict.fromkeys(self._ids[place] for place, _, _ in vertex.waits()))

    def _options(self, vertex: Vertex) -> str | None:
        """What is stored as a job's options, and beside them, where it is not like most."""
        said = vertex.said
        more = dict((vertex.asked or _nobody_asked(vertex)).stored)
        if said.stays:
            more["stays"] = True
        if said.after_end:
            more["callback"] = True
        if said.need is not None:
            more["need"] = said.need
        if said.compensates is not None:
            more["compensates"] = str(self._ids[said.compensates.place])
        if vertex.kind is Kind.END and vertex.flow is None and self._layout.verdict is not None:
            more["verdict"] = str(self._ids[self._layout.verdict])
        if vertex.kind is Kind.END and vertex.flow is None and self._root.retention is not None:
            more["retention"] = job_options.stored_retention(self._root.retention)
        return self._dump(more) if more else None


class LargeRows(FlowRows):
    """The same without an object an id, for what is copied in: see :class:`~flowrun.core.plan.Source`."""

    def __init__(self, root: Flow, layout: Layout, dump: Dump, ids: Ids) -> None:
        super().__init__(root, layout, dump, ids)
        self._raw = ids

    def alike(self) -> Iterator[tuple[JobRow, bytes, str, str]]:
        """Jobs that differ in id, name and arguments only: a row like theirs (the same one for many), and these."""
        rows: dict[tuple[int, Flow | None, str], JobRow] = {}
        for start, raws, vertices in self._windows():
            for number, raw, vertex in zip(range(start, start + WINDOW), raws, vertices, strict=False):
                if _is_like_most(vertex):
                    key = (id(vertex.asked), vertex.flow, type_of(vertex))
                    row = rows.get(key)
                    if row is None:
                        row = rows[key] = self._job(number)
                    yield row, raw, vertex.name, vertex.args

    def others(self) -> Iterator[JobRow]:
        """The other jobs."""
        return (self._job(number) for number, vertex in enumerate(self._vertices) if not _is_like_most(vertex))

    def edges_by_parent(self, tails: Sequence[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
        """The edges: id of a parent, and ids of children, each followed by what ``tails`` has for the condition.

        A parent can come more than once. By parent as far as their children stand together, and the edges to a child of
        very many parents where these stand: so their index is written from left to right, or nearly.
        """
        wide = [
            (sorted(vertex.parents), self._raw.raw(number) + tails[vertex.on])
            for number, vertex in enumerate(self._vertices)
            if len(vertex.parents) > WINDOW
        ]
        for start, raws, vertices in self._windows():
            children: dict[int, list[bytes]] = {}
            for many, child in wide:
                for parent in many[bisect_left(many, start) : bisect_left(many, start + len(raws))]:
                    children.setdefault(parent, []).append(child)
            for raw, vertex in zip(raws, vertices, strict=True):
                parents, said = vertex.parents, vertex.said
                if len(parents) <= WINDOW:
                    child = raw + tails[vertex.on]
                    for parent in parents:
                        if parent in children:
                            children[parent].append(child)
                        else:
                            children[parent] = [child]
                if said is not NOTHING and said.more is not None:
                    for (parent, condition), test in said.more.items():
                        if test is None:
                            children.setdefault(parent, []).append(raw + tails[condition])
            places = sorted(children)
            for parent, raw in zip(places, self._raw.some(places), strict=True):
                yield raw, children[parent]

    def counters(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """The rows of ``blocked``: id, and both its numbers."""
        for _, raws, vertices in self._windows():
            for raw, vertex in zip(raws, vertices, strict=True):
                said = vertex.said
                if said is NOTHING:
                    if total := len(vertex.parents):
                        yield raw, (total, total)
                elif total := vertex.total:
                    yield raw, (total if said.need is None else said.need, total)

    def _windows(self) -> Iterator[tuple[int, list[bytes], list[Vertex]]]:
        """Vertices that stand together: the number of the first, their ids, they themselves."""
        for start in range(0, len(self._vertices), WINDOW):
            vertices = self._vertices[start : start + WINDOW]
            yield start, self._raw.raws(start, start + len(vertices)), vertices


def _item_type(vertex: Vertex) -> str | None:
    spec = None if vertex.node is None else vertex.node.spec
    return None if spec is None or spec.item is None else spec.item.type


def type_of(vertex: Vertex) -> str:
    """The type of its job."""
    if vertex.kind is _HANDLER and vertex.node is not None and vertex.node.spec is not None:
        return vertex.node.spec.type
    return TYPES[vertex.kind]


def _is_like_most(vertex: Vertex) -> bool:
    asked = vertex.asked or _nobody_asked(vertex)
    plain = vertex.said is NOTHING and vertex.kind is _HANDLER and not vertex.shown
    return plain and asked.delay is None and asked.run_at is None


def _nobody_asked(vertex: Vertex) -> NoReturn:
    raise LookupError(f"nobody has asked vertex {vertex.name!r}")
