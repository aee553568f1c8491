"""Where what undoes the nodes of a flow stands: behind the verdict, each before what it undoes was done upon."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Final

from flowrun.core.states import Condition, Kind
from flowrun.core.vertex import Parents, Vertex
from flowrun.errors import InvalidFlow

_FINISHED: Final[int] = Condition.FINISHED


def connect(vertices: list[Vertex], end: int, verdict: int) -> None:
    """What undoes a node waits for the verdict, for the node, and for what undoes the nodes behind that one.

    What undoes a node that did not succeed is skipped at once, and would let those before it go first: so each waits
    for joins that stand for a node and all behind it.
    """
    last, asked = vertices[end], vertices[verdict]
    undoing = {
        vertex.said.compensates.place: number
        for number, vertex in enumerate(vertices)
        if vertex.said.compensates is not None
    }
    asked.parents, asked.on, last.parents = last.parents, last.on, (verdict,)
    behind = _behind(vertices, undoing)
    over = _undone(vertices, undoing, behind)
    for place, undo in undoing.items():
        needed: Parents = {(verdict, Condition.FAILED): None, (place, Condition.SUCCEEDED_ITSELF): None}
        needed.update(((over[later], _FINISHED), None) for later in behind[place])
        vertices[undo].wait(needed)
    last.parents = (verdict, *dict.fromkeys([*undoing.values(), *over.values()]))


def parents_of(vertices: list[Vertex]) -> dict[int, list[int]]:
    """The parents of each vertex."""
    return {number: [parent for parent, _, _ in vertex.waits()] for number, vertex in enumerate(vertices)}


def ordered(graph: Mapping[int, list[int]], vertices: list[Vertex]) -> list[int]:
    """The vertices with parents before their children; InvalidFlow names the cycle if there is no such order."""
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        names = " -> ".join(vertices[number].name for number in error.args[1])
        raise InvalidFlow(f"cycle: {names}") from None


def _undone(vertices: list[Vertex], undoing: Mapping[int, int], behind: Mapping[int, set[int]]) -> dict[int, int]:
    """By vertex: what has ended when it is undone, and all behind it."""
    over = dict(undoing)
    middle = [place for place in {later for places in behind.values() for later in places} if behind[place]]
    for place in middle:
        undo = vertices[undoing[place]]
        vertex = Vertex(Kind.JOIN, f"{undo.name}/(and all behind)", undo.flow, None)
        vertex.say(after_end=True)
        over[place] = len(vertices)
        vertices.append(vertex)
    for place in middle:
        vertex = vertices[over[place]]
        vertex.parents = tuple(dict.fromkeys([undoing[place], *(over[later] for later in behind[place])]))
        vertex.on = _FINISHED
    return over


def _behind(vertices: list[Vertex], marked: Mapping[int, int]) -> dict[int, set[int]]:
    """By vertex: the nearest ``marked`` ones on every way further down."""
    children: dict[int, list[int]] = {}
    graph = parents_of(vertices)
    for number, parents in graph.items():
        for parent in parents:
            children.setdefault(parent, []).append(number)
    behind: dict[int, set[int]] = {}
    for number in reversed(ordered(graph, vertices)):
        found: set[int] = set()
        for child in children.get(number, ()):
            found |= {child} if child in marked else behind[child]
        behind[number] = found
    return behind
