"""Where everything in a flow stands: a list of vertices, and the edges between them.

Nested flows are laid out in one list; each flow ends in a vertex of its own (kind ``end``) whose parents are the
flow's last nodes, on condition ``finished``. So a flow inside a flow, a callback of a flow and waiting for a flow are
all plain edges, and nothing but edges has to work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, cast

from flowrun.core.flow import Flow, Join, Node, When
from flowrun.core.job import JobSpec
from flowrun.core.states import FIRST_TEST, Condition, Kind
from flowrun.core.vertex import EdgeTest, Encode, Encoded, Parents, Vertex
from flowrun.errors import InvalidFlow

_FINISHED: Final = Condition.FINISHED
"""Members of an enum are slow to look up: 50 ns, and a large flow has many edges."""

MAX_DEPTH = 100
"""How deep flows may be nested."""


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
        self.verdict: int | None = None
        """Where there are compensations: the vertex that knows the outcome before the end does."""
        self._racers: set[int] = set()
        """Vertices that may be cancelled at any moment, by a rival's success."""
        self._cleanup: set[Flow] = set()
        """Flows as nodes that are not cancelled with the flow around them."""

    def lay(self, root: Flow) -> None:
        """Place every node, then draw every edge."""
        self._place(root)
        for flow in self.ends:
            self._connect(flow)
        dependents = self._dependents()
        for flow in self.ends:
            self._connect_end(flow, dependents)
        if self.verdict is not None:
            self._connect_compensations(root, self.verdict)
        self._show_parents()

    def sorted(self) -> Layout:
        """The same in topological order; InvalidFlow names the cycle if there is none."""
        if not any(vertex.parents and max(vertex.parents)[0] >= number for number, vertex in enumerate(self.vertices)):
            return self
        graph = {number: [parent for parent, _ in vertex.parents] for number, vertex in enumerate(self.vertices)}
        order = _ordered(graph, self.vertices)
        moved = {old: new for new, old in enumerate(order)}
        self.vertices = [self.vertices[old] for old in order]
        for vertex in self.vertices:
            vertex.parents = {
                (moved[parent], condition): test and test._replace(rivals=[moved[rival] for rival in test.rivals])
                for (parent, condition), test in vertex.parents.items()
            }
            if vertex.sinks is not None:
                vertex.sinks = [moved[sink] for sink in vertex.sinks]
        self.place = {node: moved[old] for node, old in self.place.items()}
        self.ends = {flow: moved[old] for flow, old in self.ends.items()}
        self.verdict = None if self.verdict is None else moved[self.verdict]
        return self

    def _place(self, root: Flow) -> None:
        """Give every node its vertex, an inner flow's nodes before its end. Without recursion: nesting can be deep."""
        _check_names(root)
        stack: list[tuple[Flow, str, Iterator[Node[Any]], Node[Any] | None]] = [(root, "", iter(root.nodes), None)]
        while stack:
            flow, prefix, nodes, as_node = stack[-1]
            for node in nodes:
                if node.inner is None:
                    self._place_job(node, flow, prefix)
                    continue
                if len(stack) > MAX_DEPTH:
                    raise InvalidFlow(f"flow {root.name!r}: flows are nested deeper than {MAX_DEPTH}")
                _check_names(node.inner)
                inside = f"{prefix}{node.name}/"
                if node.cleanup or flow in self._cleanup:
                    self._cleanup.add(node.inner)
                if node.after or flow in self.starts:
                    self.starts[node.inner] = self._append(Vertex(Kind.JOIN, f"{inside}(start)", flow, None), None)
                stack.append((node.inner, inside, iter(node.inner.nodes), node))
                break
            else:
                stack.pop()
                outer = stack[-1][0] if stack else None
                self.ends[flow] = self._append(Vertex(Kind.END, prefix[:-1] or flow.name, outer, as_node), as_node)
                self._place_behind(root, flow, prefix)

    def _place_behind(self, root: Flow, flow: Flow, prefix: str) -> None:
        """Give its vertex to what follows when ``flow`` has ended, and to what undoes its nodes."""
        for _, callback in flow.callbacks:
            vertex = self._place_job(callback, flow, prefix)
            vertex.stays = vertex.after_end = True
        for node, undo in flow.compensations:
            vertex = self._place_job(undo, flow, prefix)
            vertex.stays, vertex.compensates = True, node
            if self.verdict is None:
                self.verdict = self._append(Vertex(Kind.VERDICT, "(verdict)", root, None), None)

    def _place_job(self, node: Node[Any], flow: Flow, prefix: str) -> Vertex:
        name = prefix + node.name
        spec = cast("JobSpec[Any]", node.spec)
        vertex = Vertex(spec.kind, name, flow, node, self.encode(spec, name))
        if node.cleanup or flow in self._cleanup:
            vertex.cleanup = vertex.stays = True
        self.place[node] = len(self.vertices)
        self.vertices.append(vertex)
        return vertex

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
        begins = flow in self.starts
        for node in flow.nodes:
            entrance = self._entrance(node)
            if entrance is not None:
                self._wait(self.vertices[entrance], node, by_name, self._begins(flow, node) if begins else {})
        for condition, callback in flow.callbacks:
            self._wait(self.vertices[self.place[callback]], callback, by_name, {(self.ends[flow], condition): None})

    def _begins(self, flow: Flow, node: Node[Any]) -> Parents:
        """The edge from the start of its flow: for first nodes, and for those that a skipped parent would release."""
        whens = [when for after in node.after for when in (after.whens if isinstance(after, Join) else (after,))]
        vertex = self.vertices[self.place[node]]
        inside = bool(whens) or any(
            source.flow is flow for source in (vertex.encoded.sources if vertex.encoded else ())
        )
        if inside and all(when.condition is not Condition.FINISHED for when in whens):
            return {}
        return {(self.starts[flow], Condition.SUCCEEDED): None}

    def _dependents(self) -> _Dependents:
        """What is known of a vertex by those that wait for it. Callbacks do not count: they come after the end.

        Nor does one that a race may cancel before what it waits for has ended.
        """
        callbacks = {self.place[callback] for flow in self.ends for _, callback in flow.callbacks}
        outlived, awaited, racers = set(self.starts.values()), set[int](), self._racers
        for number, vertex in enumerate(self.vertices):
            edges = vertex.parents
            if not edges or number in callbacks:
                continue
            parents = {parent for parent, _ in edges}
            awaited.update(parents)
            if number in racers:
                continue
            if len(parents) == 1:
                outlived.update(parents)
            elif vertex.need is None or vertex.need == len(edges):
                decisive = {parent for parent, condition in edges if condition is not _FINISHED}
                if len(decisive) <= 1:
                    outlived.update(decisive or parents)
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
        end.sinks = [self.place[node] for node in sinks]
        output = _output(flow) or (sinks[0] if len(sinks) == 1 else None)
        if output is not None:
            end.encoded = Encoded('{"result":null}', [output], [(["result"], 0, [])])
        elif flow.parent is not None:
            names = ",".join(f"{json_name(node.name)}:null" for node in sinks)
            end.encoded = Encoded(
                f'{{"result":{{{names}}}}}', sinks, [(["result", node.name], at, []) for at, node in enumerate(sinks)]
            )

    def _show_parents(self) -> None:
        """Say whose parents are recorded: of nodes that may ask for them, and of the joins they are seen through.

        A join is looked through only when the node runs. A thousand nodes behind the start of their flow, which waits
        for a thousand others, would else record a million parents.
        """
        stack = [vertex for vertex in self.vertices if vertex.encoded is not None and vertex.encoded.takes_job]
        while stack:
            vertex = stack.pop()
            vertex.shown = True
            parents = [self.vertices[place] for place, _ in vertex.parents]
            stack += [parent for parent in parents if parent.kind is Kind.JOIN and not parent.shown]

    def _wait(self, vertex: Vertex, node: Node[Any], by_name: Mapping[str, Node[Any]], required: Parents) -> None:
        joins: list[tuple[Join, Parents]] = []
        flow, place, cleanup = node.flow, self.place, vertex.cleanup
        for condition in node.after:
            if isinstance(condition, When):
                parent = condition.node
                if isinstance(parent, Node) and parent.flow is flow and condition.test is None and not cleanup:
                    required[place[parent], condition.condition] = None  # most edges are like this one
                else:
                    self._ask(required, self._parent(node, condition, by_name), condition, cleanup)
                continue
            parents = self._joined(node, condition, by_name, cleanup)
            if condition.count < len(parents) or condition.race:
                joins.append((condition, parents))
                continue
            for when in condition.whens:  # all are needed: they are plain edges
                self._ask(required, self._parent(node, when, by_name), when, cleanup)
        if vertex.encoded is not None and vertex.encoded.sources:
            known = {parent for parents in (required, *(parents for _, parents in joins)) for parent, _ in parents}
            if vertex.kind is Kind.MAP:
                known.clear()  # without its list it could do nothing: that parent must have succeeded
            for source in vertex.encoded.sources:
                if self._source(node, source) not in known:
                    self._ask(required, place[source], source.succeeded, cleanup)
        # A map waits again, for its items: a parent that a join did not wait for must not count then.
        if len(joins) == 1 and not required and vertex.kind is not Kind.MAP:
            vertex.need, vertex.parents = joins[0][0].count, joins[0][1]
            return
        names: dict[str, int] = {}
        for join, parents in joins:
            name = f"{vertex.name}/({join.count} of {len(parents)})"
            names[name] = alike = names.get(name, 0) + 1
            name += f"-{alike}" if alike > 1 else ""
            choice = Vertex(Kind.JOIN, name, vertex.flow, None, None, parents)
            choice.need = join.count
            number = self._append(choice, None)
            self.joins.setdefault(flow, []).append(number)
            required[number, Condition.SUCCEEDED] = None
        vertex.parents = required

    def _ask(
        self,
        parents: Parents,
        parent: int,
        when: When,
        cleanup: bool,
        race: list[int] | None = None,
        choice: bool = False,
    ) -> None:
        """Add an edge to ``parents``."""
        condition = when.condition
        if cleanup and condition is Condition.SUCCEEDED:
            condition = Condition.SUCCEEDED_OR_CANCELLED
        if when.test is None and race is None:
            parents[parent, condition] = None
        else:
            rivals = [rival for rival in race or () if rival != parent]
            parents[parent, FIRST_TEST + len(parents)] = EdgeTest(condition, when.test, rivals, choice)

    def _joined(self, node: Node[Any], join: Join, by_name: Mapping[str, Node[Any]], cleanup: bool) -> Parents:
        places = [self._parent(node, when, by_name) for when in join.whens]
        racers = list(dict.fromkeys(places)) if join.race else None
        self._racers.update(racers or ())
        parents: Parents = {}
        for place, when in zip(places, join.whens, strict=True):
            self._ask(parents, place, when, cleanup, racers, join.count < len(join.whens))
        if len(parents) < len(join.whens):
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r}: a join names the same condition twice, by node and by "
                "name: each counts once"
            )
        return parents

    def _connect_compensations(self, root: Flow, verdict: int) -> None:
        """What undoes a node waits for the verdict, for the node, and for what undoes the nodes behind that one.

        What undoes a node that did not succeed is skipped at once, and would let those before it go first: so each
        waits for joins that stand for a node and all behind it."""
        end = self.vertices[self.ends[root]]
        undoing = {
            self.place[vertex.compensates]: number
            for number, vertex in enumerate(self.vertices)
            if vertex.compensates is not None
        }
        self.vertices[verdict].parents, end.parents = end.parents, {(verdict, Condition.FINISHED): None}
        behind = self._behind(undoing)
        over = self._undone(undoing, behind)
        for place, undo in undoing.items():
            vertex = self.vertices[undo]
            vertex.parents[verdict, Condition.FAILED] = None
            vertex.parents[place, Condition.SUCCEEDED_ITSELF] = None
            for later in behind[place]:
                vertex.parents[over[later], Condition.FINISHED] = None
        for number in {*undoing.values(), *over.values()}:
            end.parents[number, Condition.FINISHED] = None

    def _undone(self, undoing: Mapping[int, int], behind: Mapping[int, set[int]]) -> dict[int, int]:
        """By vertex: what has ended when it is undone, and all behind it."""
        over = dict(undoing)
        middle = [place for place in {later for places in behind.values() for later in places} if behind[place]]
        for place in middle:
            undo = self.vertices[undoing[place]]
            name = f"{undo.name}/(and all behind)"
            vertex = Vertex(Kind.JOIN, name, undo.flow, None)
            vertex.after_end = True
            over[place] = self._append(vertex, None)
        for place in middle:
            needed = [undoing[place], *(over[later] for later in behind[place])]
            self.vertices[over[place]].parents = {(number, Condition.FINISHED): None for number in needed}
        return over

    def _behind(self, marked: Mapping[int, int]) -> dict[int, set[int]]:
        """By vertex: the nearest ``marked`` ones on every way further down."""
        children: dict[int, list[int]] = {}
        graph = {number: [parent for parent, _ in vertex.parents] for number, vertex in enumerate(self.vertices)}
        for number, parents in graph.items():
            for parent in parents:
                children.setdefault(parent, []).append(number)
        behind: dict[int, set[int]] = {}
        for number in reversed(_ordered(graph, self.vertices)):
            found: set[int] = set()
            for child in children.get(number, ()):
                found |= {child} if child in marked else behind[child]
            behind[number] = found
        return behind

    def _parent(self, node: Node[Any], when: When, by_name: Mapping[str, Node[Any]]) -> int:
        parent = by_name.get(when.node) if isinstance(when.node, str) else when.node
        if parent is None:
            raise InvalidFlow(f"node {node.name!r} of flow {node.flow.name!r} waits for an unknown node {when.node!r}")
        if parent.flow is not node.flow:
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r} waits for node {parent.name!r} of another flow, "
                f"{parent.flow.name!r}"
            )
        return self.place[parent]

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


def _ordered(graph: Mapping[int, list[int]], vertices: list[Vertex]) -> list[int]:
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        names = " -> ".join(vertices[number].name for number in error.args[1])
        raise InvalidFlow(f"cycle: {names}") from None


def json_name(name: str) -> str:
    """A node's name as a JSON text (names have no control characters)."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _check_names(flow: Flow) -> None:
    seen: dict[str, Node[Any]] = {}
    others = (node for _, node in (*flow.callbacks, *flow.compensations))
    for node in [*flow.nodes, *others]:
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
