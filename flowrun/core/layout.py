"""Where everything in a flow stands: a list of vertices, and the edges between them.

Nested flows are laid out in one list; each flow ends in a vertex of its own (kind ``end``) whose parents are the
flow's last nodes, on condition ``finished``. So a flow inside a flow, a callback of a flow and waiting for a flow are
all plain edges, and nothing but edges has to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, cast

from flowrun.core.flow import Flow, Join, Node, When
from flowrun.core.job import JobSpec
from flowrun.core.states import Condition, Kind
from flowrun.errors import InvalidFlow

MAX_DEPTH = 100
"""How deep flows may be nested."""


class Encoded(NamedTuple):
    """A job's arguments as they are stored; ``bindings`` name their sources by their place in ``sources``."""

    args: str
    sources: list[Node[Any]]
    bindings: list[tuple[list[str | int], int, list[str | int]]]


NO_ARGUMENTS = Encoded("{}", [], [])

Encode = Callable[[JobSpec[Any], "str | None"], Encoded]
"""From a job and the name of its node (None: it has none)."""


@dataclass(slots=True, eq=False)
class Vertex:
    """A job to be: of a handler, or one of flowrun's own."""

    kind: Kind
    name: str
    flow: Flow | None
    """The flow it is a node of; None for the end of the outermost."""
    node: Node[Any] | None
    parents: dict[tuple[int, Condition], None] = field(default_factory=dict)
    need: int | None = None
    """How many parents are needed; None: all."""
    encoded: Encoded | None = None


@dataclass(slots=True)
class _Dependents:
    outlived: set[int]
    """Vertices that have ended when some other that waits for them has."""
    awaited: set[int]
    """Vertices that some other waits for."""


class Layout:
    """Vertices of a flow and of all flows inside it, and the edges between them."""

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.vertices: list[Vertex] = []
        self.place: dict[Node[Any], int] = {}
        """Where a node's vertex is; for a flow as a node, its end."""
        self.ends: dict[Flow, int] = {}
        self.starts: dict[Flow, int] = {}
        """The join that an inner flow's first nodes wait for, where the flow as a node waits for something."""
        self.joins: dict[Flow, list[int]] = {}
        """Joins made for a flow's nodes."""

    def lay(self, root: Flow) -> None:
        """Place every node, then draw every edge."""
        self._place(root)
        for flow in self.ends:
            self._connect(flow)
        dependents = self._dependents()
        for flow in self.ends:
            self._connect_end(flow, dependents)

    def sorted(self) -> Layout:
        """The same in topological order; InvalidFlow names the cycle if there is none."""
        if not any(vertex.parents and max(vertex.parents)[0] >= number for number, vertex in enumerate(self.vertices)):
            return self
        graph = {number: [parent for parent, _ in vertex.parents] for number, vertex in enumerate(self.vertices)}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            names = " -> ".join(self.vertices[number].name for number in error.args[1])
            raise InvalidFlow(f"cycle: {names}") from None
        moved = {old: new for new, old in enumerate(order)}
        self.vertices = [self.vertices[old] for old in order]
        for vertex in self.vertices:
            vertex.parents = {(moved[parent], condition): None for parent, condition in vertex.parents}
        self.place = {node: moved[old] for node, old in self.place.items()}
        self.ends = {flow: moved[old] for flow, old in self.ends.items()}
        return self

    def _place(self, root: Flow) -> None:
        """Give every node its vertex, an inner flow's nodes before its end. Without recursion: nesting can be deep."""
        _check_names(root)
        stack: list[tuple[Flow, str, Iterator[Node[Any]], Node[Any] | None]] = [(root, "", iter(root.nodes), None)]
        while stack:
            flow, prefix, nodes, as_node = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                outer = stack[-1][0] if stack else None
                self.ends[flow] = self._append(Vertex(Kind.END, prefix[:-1] or flow.name, outer, as_node), as_node)
                for _, callback in flow.callbacks:
                    self._place_job(callback, flow, prefix)
            elif node.inner is not None:
                if len(stack) > MAX_DEPTH:
                    raise InvalidFlow(f"flow {root.name!r}: flows are nested deeper than {MAX_DEPTH}")
                _check_names(node.inner)
                inside = f"{prefix}{node.name}/"
                if node.after or flow in self.starts:
                    self.starts[node.inner] = self._append(Vertex(Kind.JOIN, f"{inside}(start)", flow, None), None)
                stack.append((node.inner, inside, iter(node.inner.nodes), node))
            else:
                self._place_job(node, flow, prefix)

    def _place_job(self, node: Node[Any], flow: Flow, prefix: str) -> None:
        name = prefix + node.name
        encoded = self.encode(cast("JobSpec[Any]", node.spec), name)
        self.place[node] = len(self.vertices)
        self.vertices.append(Vertex(Kind.HANDLER, name, flow, node, {}, None, encoded))

    def _append(self, vertex: Vertex, node: Node[Any] | None) -> int:
        self.vertices.append(vertex)
        if node is not None:
            self.place[node] = len(self.vertices) - 1
        return len(self.vertices) - 1

    def _entrance(self, node: Node[Any]) -> int | None:
        """The vertex that carries what ``node`` waits for; None for an inner flow that waits for nothing."""
        return self.place[node] if node.inner is None else self.starts.get(node.inner)

    def _connect(self, flow: Flow) -> None:
        by_name = {node.name: node for node in flow.nodes}
        for node in flow.nodes:
            entrance = self._entrance(node)
            if entrance is not None:
                self._wait(self.vertices[entrance], node, by_name, self._begins(flow, node))
        for condition, callback in flow.callbacks:
            self._wait(self.vertices[self.place[callback]], callback, by_name, {(self.ends[flow], condition): None})

    def _begins(self, flow: Flow, node: Node[Any]) -> dict[tuple[int, Condition], None]:
        """The edge from the start of its flow: for first nodes, and for those that a skipped parent would release."""
        if flow not in self.starts:
            return {}
        whens = [when for after in node.after for when in (after.whens if isinstance(after, Join) else (after,))]
        vertex = self.vertices[self.place[node]]
        inside = bool(whens) or any(
            source.flow is flow for source in (vertex.encoded.sources if vertex.encoded else ())
        )
        if inside and all(when.condition is not Condition.FINISHED for when in whens):
            return {}
        return {(self.starts[flow], Condition.SUCCEEDED): None}

    def _dependents(self) -> _Dependents:
        """What is known of a vertex by those that wait for it. Callbacks do not count: they come after the end."""
        callbacks = {self.place[callback] for flow in self.ends for _, callback in flow.callbacks}
        outlived, awaited = set(self.starts.values()), set[int]()
        for number, vertex in enumerate(self.vertices):
            if not vertex.parents or number in callbacks:
                continue
            parents = {parent for parent, _ in vertex.parents}
            awaited |= parents
            if len(parents) == 1:
                outlived |= parents
            elif vertex.need in (None, len(vertex.parents)):
                decisive = {parent for parent, condition in vertex.parents if condition is not Condition.FINISHED}
                if len(decisive) <= 1:
                    outlived |= decisive or parents
        return _Dependents(outlived, awaited)

    def _connect_end(self, flow: Flow, dependents: _Dependents) -> None:
        """The end of a flow waits for its last nodes, and for all that may still run when those are decided.

        A child is skipped as soon as one parent disappoints it, and released by a join as soon as enough do not: its
        other parents may well be running then.
        """
        end = self.vertices[self.ends[flow]]
        own = [self.place[node] for node in flow.nodes] + self.joins.get(flow, [])
        for place in own:
            if place not in dependents.outlived:
                end.parents[place, Condition.FINISHED] = None
        if flow in self.starts:
            end.parents[self.starts[flow], Condition.SUCCEEDED] = None
        sinks = [node for node in flow.nodes if self.place[node] not in dependents.awaited]
        output = _output(flow) or (sinks[0] if len(sinks) == 1 else None)
        if output is not None:
            end.encoded = Encoded('{"result":null}', [output], [(["result"], 0, [])])
        elif flow.parent is not None:
            names = ",".join(f"{json_name(node.name)}:null" for node in sinks)
            end.encoded = Encoded(
                f'{{"result":{{{names}}}}}', sinks, [(["result", node.name], at, []) for at, node in enumerate(sinks)]
            )

    def _wait(
        self,
        vertex: Vertex,
        node: Node[Any],
        by_name: Mapping[str, Node[Any]],
        required: dict[tuple[int, Condition], None],
    ) -> None:
        joins: list[tuple[int, dict[tuple[int, Condition], None]]] = []
        for condition in node.after:
            if isinstance(condition, Join):
                joins.append((condition.count, self._joined(node, condition, by_name)))
            else:
                required[self._parent(node, condition, by_name)] = None
        if vertex.encoded is not None and vertex.encoded.sources:
            known = {parent for parents in (required, *(parents for _, parents in joins)) for parent, _ in parents}
            for source in vertex.encoded.sources:
                if self._source(node, source) not in known:
                    required[self.place[source], Condition.SUCCEEDED] = None
        if len(joins) == 1 and not required:
            vertex.need, vertex.parents = joins[0]
            return
        for count, parents in joins:
            join = Vertex(Kind.JOIN, f"{vertex.name}/({count} of {len(parents)})", vertex.flow, None, parents, count)
            place = self._append(join, None)
            self.joins.setdefault(node.flow, []).append(place)
            required[place, Condition.SUCCEEDED] = None
        vertex.parents = required

    def _joined(
        self, node: Node[Any], join: Join, by_name: Mapping[str, Node[Any]]
    ) -> dict[tuple[int, Condition], None]:
        parents = {self._parent(node, when, by_name): None for when in join.whens}
        if len(parents) < len(join.whens):
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r}: a join names the same condition twice, by node and by "
                "name: each counts once"
            )
        return parents

    def _parent(self, node: Node[Any], when: When, by_name: Mapping[str, Node[Any]]) -> tuple[int, Condition]:
        parent = by_name.get(when.node) if isinstance(when.node, str) else when.node
        if parent is None:
            raise InvalidFlow(f"node {node.name!r} of flow {node.flow.name!r} waits for an unknown node {when.node!r}")
        if parent.flow is not node.flow:
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r} waits for node {parent.name!r} of another flow, "
                f"{parent.flow.name!r}"
            )
        return self.place[parent], when.condition

    def _source(self, node: Node[Any], source: Node[Any]) -> int:
        above: Flow | None = node.flow
        while above is not None and above is not source.flow:
            above = above.parent
        if above is None or source not in self.place:
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r} uses the result of node {source.name!r} of flow "
                f"{source.flow.name!r}, which is not an ancestor: only results of nodes of the same flow, or of a flow "
                "around it, can be used"
            )
        return self.place[source]


def json_name(name: str) -> str:
    """A node's name as a JSON text (names have no control characters)."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _check_names(flow: Flow) -> None:
    seen: dict[str, Node[Any]] = {}
    for node in [*flow.nodes, *(callback for _, callback in flow.callbacks)]:
        if seen.setdefault(node.name, node) is not node:
            raise InvalidFlow(f"flow {flow.name!r} has two nodes named {node.name!r}; give one of them another name=")


def _output(flow: Flow) -> Node[Any] | None:
    if flow.output is None:
        return None
    for node in flow.nodes:
        if node is flow.output or node.name == flow.output:
            return node
    name = flow.output if isinstance(flow.output, str) else flow.output.name
    raise InvalidFlow(f"flow {flow.name!r}: output= names {name!r}, which is not one of its nodes")
