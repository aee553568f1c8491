"""Where everything in a flow stands: a list of vertices, and the edges between them.

Nested flows are laid out in one list; each flow ends in a vertex of its own (kind ``end``) whose parents are the
flow's last nodes, on condition ``finished``. So a flow inside a flow, a callback of a flow and waiting for a flow are
all plain edges, and nothing but edges has to work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

from flowrun.core import compensation
from flowrun.core.flow import Flow, Join, Node, When
from flowrun.core.job import JobSpec
from flowrun.core.node import Wait
from flowrun.core.states import FIRST_TEST, Condition, Kind
from flowrun.core.vertex import NOTHING, SUCCEEDED, EdgeTest, Encode, Encoded, Parents, Vertex
from flowrun.errors import InvalidFlow

_FINISHED: Final[int] = Condition.FINISHED

MAX_DEPTH = 100
"""How deep flows may be nested."""


@dataclass(slots=True)
class _Dependents:
    """What is known of each vertex by those that wait for it, as 0 or 1."""

    outlived: bytearray
    """It has ended when some other that waits for it has."""
    awaited: bytearray
    """Some other waits for it."""


class Layout:
    """Vertices of a flow and of all flows inside it, and the edges between them.

    Each node is told where its vertex is (for a flow as a node: its end): true until its flow is laid out anew.
    """

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.vertices: list[Vertex] = []
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
        self._names: dict[Flow, dict[str, Node[Any]]] = {}
        self._asking: list[Vertex] = []
        """Those whose handlers may ask for their parents."""

    def lay(self, root: Flow) -> None:
        """Place every node, then draw every edge."""
        self._place(root)
        for flow in self.ends:
            self._connect(flow)
        dependents = self._dependents()
        for flow in self.ends:
            self._connect_end(flow, dependents)
        if self.verdict is not None:
            compensation.connect(self.vertices, self.ends[root], self.verdict)
        self._show_parents()

    def sorted(self) -> Layout:
        """The same in topological order; InvalidFlow names the cycle if there is none."""
        if self._is_sorted():
            return self
        order = compensation.ordered(compensation.parents_of(self.vertices), self.vertices)
        moved = {old: new for new, old in enumerate(order)}
        self.vertices = [self.vertices[old] for old in order]
        for vertex in self.vertices:
            vertex.parents = tuple([moved[parent] for parent in vertex.parents])
            if vertex.said.more is not None:
                more = {
                    (moved[parent], condition): test and test._replace(rivals=[moved[rival] for rival in test.rivals])
                    for (parent, condition), test in vertex.said.more.items()
                }
                vertex.say(more=more)
            if vertex.said.sinks is not None:
                vertex.say(sinks=[moved[sink] for sink in vertex.said.sinks])
            if vertex.node is not None:
                vertex.node.place = moved[vertex.node.place]
        self.ends = {flow: moved[old] for flow, old in self.ends.items()}
        self.verdict = None if self.verdict is None else moved[self.verdict]
        return self

    def _is_sorted(self) -> bool:
        for number, vertex in enumerate(self.vertices):
            parents, said = vertex.parents, vertex.said
            if parents and (parents[-1] >= number or max(parents) >= number):
                return False
            if said is not NOTHING and said.more is not None and max(said.more)[0] >= number:
                return False
        return True

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
                    start = Vertex(Kind.JOIN, f"{inside}(start)", flow, None)
                    if node.inner in self._cleanup:
                        start.say(cleanup=True, stays=True)
                    self.starts[node.inner] = self._append(start, None)
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
            vertex.say(stays=True, after_end=True)
        for node, undo in flow.compensations:
            vertex = self._place_job(undo, flow, prefix)
            vertex.say(stays=True, compensates=node)
            if self.verdict is None:
                self.verdict = self._append(Vertex(Kind.VERDICT, "(verdict)", root, None), None)

    def _place_job(self, node: Node[Any], flow: Flow, prefix: str) -> Vertex:
        name = prefix + node.name if prefix else node.name
        spec = cast("JobSpec[Any]", node.spec)
        encoded = self.encode(spec, name)
        vertex = Vertex(spec.kind, name, flow, node, encoded.args)
        if encoded.sources:
            vertex.say(bound=encoded)
        if encoded.takes_job:
            self._asking.append(vertex)
        if node.cleanup or flow in self._cleanup:
            vertex.say(cleanup=True, stays=True)
        node.place = len(self.vertices)
        self.vertices.append(vertex)
        return vertex

    def _append(self, vertex: Vertex, node: Node[Any] | None) -> int:
        place = len(self.vertices)
        self.vertices.append(vertex)
        if node is not None:
            node.place = place
        return place

    def _connect(self, flow: Flow) -> None:
        begins, vertices = flow in self.starts, self.vertices
        for node in flow.nodes:
            entrance = node.place if node.inner is None else self.starts.get(node.inner)
            if entrance is None:  # an inner flow that waits for nothing
                continue
            vertex = vertices[entrance]
            if (
                begins
                or vertex.said is not NOTHING
                or vertex.kind is Kind.MAP
                or not _wait_for_success(vertex, node, flow)
            ):
                self._wait(vertex, node, self._begins(flow, node) if begins else {})
        for condition, callback in flow.callbacks:
            self._wait(self.vertices[callback.place], callback, {(self.ends[flow], condition): None})

    def _begins(self, flow: Flow, node: Node[Any]) -> Parents:
        """The edge from the start of its flow: for first nodes, and for those that a skipped parent would release."""
        whens = [when for after in node.after for when in _whens(after)]
        bound = self.vertices[node.place].said.bound
        inside = bool(whens) or any(source.flow is flow for source in (bound.sources if bound else ()))
        if inside and all(when.condition is not Condition.FINISHED for when in whens):
            return {}
        # The join is cancelled with a flow that has not begun: what cleans up runs all the same.
        cleans = node.cleanup or flow in self._cleanup
        return {(self.starts[flow], Condition.SUCCEEDED_OR_CANCELLED if cleans else Condition.SUCCEEDED): None}

    def _dependents(self) -> _Dependents:
        """What is known of a vertex by those that wait for it. Callbacks do not count: they come after the end.

        Nor does one that a race may cancel before what it waits for has ended, alone or with the flow it is in.
        """
        self._race_within()
        callbacks = {callback.place for flow in self.ends for _, callback in flow.callbacks}
        outlived, awaited, racers = bytearray(len(self.vertices)), bytearray(len(self.vertices)), self._racers
        for start in self.starts.values():
            outlived[start] = 1
        for number, vertex in enumerate(self.vertices):
            if vertex.said is NOTHING and vertex.on == SUCCEEDED:  # most are like this one
                parents = vertex.parents
                for parent in parents:
                    awaited[parent] = 1
                if len(parents) == 1 and number not in racers:
                    outlived[parents[0]] = 1
            elif number not in callbacks:
                for parent in {parent for parent, _, _ in vertex.waits()}:
                    awaited[parent] = 1
                if number not in racers:
                    for parent in _outlived(vertex):
                        outlived[parent] = 1
        return _Dependents(outlived, awaited)

    def _race_within(self) -> None:
        """What is in a flow that races is cancelled with it, and so is the join that it begins with."""
        racing = {flow for flow, end in self.ends.items() if end in self._racers}
        if not racing:
            return
        for flow in self.ends:
            above: Flow | None = flow
            while above is not None and above not in racing:
                above = above.parent
            if above is not None:
                racing.add(flow)
                if flow in self.starts:
                    self._racers.add(self.starts[flow])
        self._racers.update(number for number, vertex in enumerate(self.vertices) if vertex.flow in racing)

    def _connect_end(self, flow: Flow, dependents: _Dependents) -> None:
        """The end of a flow waits for its last nodes, and for all that may still run when those are decided.

        A child is skipped as soon as one parent disappoints it, and released by a join as soon as enough do not: its
        other parents may well be running then.
        """
        end = self.vertices[self.ends[flow]]
        outlived, awaited = dependents.outlived, dependents.awaited
        own = chain([node.place for node in flow.nodes], self.joins.get(flow, ()))
        end.parents, end.on = [place for place in own if not outlived[place]], _FINISHED
        if flow in self.starts:
            end.wait_too(self.starts[flow], Condition.SUCCEEDED_OR_CANCELLED)
        sinks = [node for node in flow.nodes if not awaited[node.place]]
        bound: Encoded | None = None
        output = _output(flow) or (sinks[0] if len(sinks) == 1 else None)
        if output is not None:
            bound = Encoded('{"result":null}', [output], [(["result"], 0, [])])
        elif flow.parent is not None:
            names = ",".join(f"{json_name(node.name)}:null" for node in sinks)
            bindings: list[Any] = [(["result", node.name], at, []) for at, node in enumerate(sinks)]
            bound = Encoded(f'{{"result":{{{names}}}}}', sinks, bindings)
        end.args = end.args if bound is None else bound.args
        end.say(sinks=[node.place for node in sinks], bound=bound)

    def _show_parents(self) -> None:
        """Say whose parents are recorded: of nodes that may ask for them, and of the joins they are seen through.

        A join is looked through only when the node runs. A thousand nodes behind the start of their flow, which waits
        for a thousand others, would else record a million parents.
        """
        stack, self._asking = self._asking, []
        while stack:
            vertex = stack.pop()
            vertex.shown = True
            parents = [self.vertices[place] for place, _, _ in vertex.waits()]
            stack += [parent for parent in parents if parent.kind is Kind.JOIN and not parent.shown]

    def _wait(self, vertex: Vertex, node: Node[Any], required: Parents) -> None:
        joins: list[tuple[Join, Parents]] = []
        flow, said = node.flow, vertex.said
        cleanup = said.cleanup
        for condition in node.after:
            if not isinstance(condition, Join):
                when = condition.succeeded if isinstance(condition, Node) else condition
                self._ask(required, self._parent(node, when), when, cleanup)
                continue
            parents = self._joined(node, condition, cleanup)
            if condition.count < len(parents) or condition.race:
                joins.append((condition, parents))
                continue
            for when in condition.whens:  # all are needed: they are plain edges
                self._ask(required, self._parent(node, when), when, cleanup)
        if said.bound is not None:
            # A map without its list could do nothing: where only a join names its source, that must have succeeded.
            named = [required] if vertex.kind is Kind.MAP else [required, *(parents for _, parents in joins)]
            known = {parent for parents in named for parent, _ in parents}
            for source in said.bound.sources:
                if self._source(node, source) not in known:
                    self._ask(required, source.place, source.succeeded, cleanup)
        # A map waits again, for its items: a parent that a join did not wait for must not count then.
        if len(joins) == 1 and not required and vertex.kind is not Kind.MAP:
            vertex.say(need=joins[0][0].count)
            vertex.wait(joins[0][1])
            return
        names: dict[str, int] = {}
        for join, parents in joins:
            name = f"{vertex.name}/({join.count} of {len(parents)})"
            names[name] = alike = names.get(name, 0) + 1
            name += f"-{alike}" if alike > 1 else ""
            choice = Vertex(Kind.JOIN, name, vertex.flow, None)
            choice.say(need=join.count)
            choice.wait(parents)
            number = self._append(choice, None)
            self.joins.setdefault(flow, []).append(number)
            required[number, Condition.SUCCEEDED] = None
        vertex.wait(required)

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

    def _joined(self, node: Node[Any], join: Join, cleanup: bool) -> Parents:
        places = [self._parent(node, when) for when in join.whens]
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

    def _named(self, flow: Flow) -> Mapping[str, Node[Any]]:
        """The nodes of a flow by name, for those who wait for names."""
        if flow not in self._names:
            self._names[flow] = {node.name: node for node in flow.nodes}
        return self._names[flow]

    def _parent(self, node: Node[Any], when: When) -> int:
        parent = self._named(node.flow).get(when.node) if isinstance(when.node, str) else when.node
        if parent is None:
            raise InvalidFlow(f"node {node.name!r} of flow {node.flow.name!r} waits for an unknown node {when.node!r}")
        if parent.flow is not node.flow:
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r} waits for node {parent.name!r} of another flow, "
                f"{parent.flow.name!r}"
            )
        return parent.place

    def _source(self, node: Node[Any], source: Node[Any]) -> int:
        above: Flow | None = node.flow
        while above is not None and above is not source.flow:
            above = above.parent
        if above is None:
            raise InvalidFlow(
                f"node {node.name!r} of flow {node.flow.name!r} uses the result of node {source.name!r} of flow "
                f"{source.flow.name!r}, which is not an ancestor: only results of nodes of the same flow, or of a flow "
                "around it, can be used"
            )
        return source.place


def _wait_for_success(vertex: Vertex, node: Node[Any], flow: Flow) -> bool:
    """Whether it waits for the success of nodes of its flow, and nothing else; then its vertex does. Most do."""
    places: list[int] = []
    for parent in node.after:
        if not isinstance(parent, Node) or parent.flow is not flow:
            return False
        places.append(parent.place)
    vertex.parents = tuple(places if len(places) < 2 or len(set(places)) == len(places) else dict.fromkeys(places))
    return True


def _outlived(vertex: Vertex) -> set[int]:
    """Those that have ended when ``vertex`` has."""
    edges = [(parent, condition) for parent, condition, _ in vertex.waits()]
    parents = {parent for parent, _ in edges}
    if len(parents) == 1:
        return parents
    if vertex.said.need is None or vertex.said.need == len(edges):
        decisive = {parent for parent, condition in edges if condition != _FINISHED}
        if len(decisive) <= 1:
            return decisive or parents
    return set()


def _whens(condition: Wait) -> Sequence[When]:
    if isinstance(condition, Join):
        return condition.whens
    return (condition.succeeded if isinstance(condition, Node) else condition,)


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
