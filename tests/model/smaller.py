"""From many flows of which one failed to a small one that fails too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy

from tests.model.arena import Arena, report
from tests.model.written import Flow, Join, Node


async def failure(here: Arena, flows: Sequence[Flow], times: int = 1) -> str | None:
    for _ in range(times):
        try:
            await here.play(flows)
        except AssertionError as error:
            await here.reset()
            return str(error)
    return None


async def smallest(here: Arena, flows: Sequence[Flow], problem: str) -> str:
    """The smallest flow found that fails too; what fails now and then is tried several times."""
    for flow in flows:
        alone = await failure(here, [flow], 5)
        if alone is not None:
            break
    else:
        return f"(each flow alone is as expected)\n{problem}"
    again = True
    deadline = time.monotonic() + 120
    while again and time.monotonic() < deadline:
        again = False
        for candidate in smaller(flow):
            fails = await failure(here, [candidate], 3)
            if fails is not None:
                flow, alone, again = candidate, fails, True
                break
    return alone if "Flow(" in alone else report(flow, [alone])


def smaller(flow: Flow) -> Iterator[Flow]:
    """Copies with one node, edge, reference, callback or trait less; the big steps first."""
    for path in list(_paths(flow)):
        yield _changed(flow, path, _remove)
    for path in list(_paths(flow)):
        node = _at(flow, path)[0].nodes[path[-1]]
        for number in range(len(node.after)):
            yield _changed(flow, path, lambda _flow, node, number=number: node.after.pop(number))
            if isinstance(node.after[number], Join):
                yield _changed(flow, path, lambda _flow, node, number=number: _narrow(node, number))
        for number in range(len(node.refs)):
            yield _changed(flow, path, lambda _flow, node, number=number: node.refs.pop(number))
        if (node.do, node.pause, node.timed, node.thread, node.optional) != ("succeed", 0, False, False, False):
            yield _changed(flow, path, _plain)
    for path in [(), *_paths(flow)]:
        inner = _at(flow, (*path, 0))[0] if not path or _at(flow, path)[0].nodes[path[-1]].flow else None
        if inner and (inner.callbacks or inner.output is not None or inner.late):
            copy = deepcopy(flow)
            bare = _at(copy, (*path, 0))[0]
            bare.callbacks, bare.output, bare.late = [], None, False
            yield copy
            for number in range(len(inner.callbacks)):
                copy = deepcopy(flow)
                _at(copy, (*path, 0))[0].callbacks.pop(number)
                yield copy


def _paths(flow: Flow, above: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    for index in reversed(range(len(flow.nodes))):
        if len(flow.nodes) > 1:
            yield (*above, index)
        if inner := flow.nodes[index].flow:
            yield from _paths(inner, (*above, index))


def _at(flow: Flow, path: tuple[int, ...]) -> tuple[Flow, int]:
    for index in path[:-1]:
        inner = flow.nodes[index].flow
        assert inner
        flow = inner
    return flow, path[-1]


def _changed(flow: Flow, path: tuple[int, ...], change: object) -> Flow:
    copy = deepcopy(flow)
    inner, index = _at(copy, path)
    change(inner, inner.nodes[index])  # type: ignore[operator]
    return copy


def _plain(_flow: Flow, node: Node) -> None:
    node.do, node.pause, node.timed, node.thread, node.optional = "succeed", 0, False, False, False


def _narrow(node: Node, number: int) -> None:
    join = node.after[number]
    assert isinstance(join, Join)
    join.whens.pop()
    join.count = min(join.count, len(join.whens))
    if not join.whens:
        node.after.pop(number)


def _remove(flow: Flow, node: Node) -> None:
    gone = flow.nodes.index(node)
    flow.nodes.pop(gone)
    if flow.output is not None:
        flow.output = None
    for other in flow.nodes:
        _forget(other, gone, 0)


def _forget(node: Node, gone: int, level: int) -> None:
    node.refs = [ref for ref in node.refs if (ref.level, ref.index) != (level, gone)]
    for ref in node.refs:
        if ref.level == level and ref.index > gone:
            ref.index -= 1
    if level == 0:
        for condition in list(node.after):
            if isinstance(condition, Join):
                condition.whens = [when for when in condition.whens if when.index != gone]
                condition.count = min(condition.count, len(condition.whens))
                if not condition.whens:
                    node.after = [other for other in node.after if other is not condition]
            elif condition.index == gone:
                node.after = [other for other in node.after if other is not condition]
        for condition in node.after:
            for when in condition.whens if isinstance(condition, Join) else [condition]:
                when.index -= when.index > gone
    if node.flow:
        for inner in node.flow.nodes:
            _forget(inner, gone, level + 1)
