"""What follows when jobs end: which children are released, which are skipped, which go on waiting.

The fast path of settling (every edge satisfied) is decided inside its SQL statement. Everything else comes here:
a failure, a skip, a branch not taken. The store loads the affected part of the graph with its rows locked, this
module decides, the store writes. Deciding here costs no round trip a level, so a chain of 10,000 skips is one write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from flowrun.core.states import Condition, Outcome, satisfies

Id = TypeVar("Id", bound=Hashable)


class Edge(NamedTuple, Generic[Id]):
    """``child`` waits for ``parent`` to end as ``condition`` says."""

    parent: Id
    child: Id
    condition: Condition
    passed: bool = True
    """Whether the parent's result is as asked, where something is asked of it."""
    rivals: Sequence[Id] = ()
    """Of a race: those who lose it if this edge decides it."""


class Counters(NamedTuple):
    """A waiting job's two counters: it is released at ``need == 0`` and skipped when ``open < need``."""

    need: int
    """How many more edges must be satisfied."""
    open: int
    """How many edges are still undecided."""


class Ended(NamedTuple):
    """How a job ended, and whether its failure counts as success for those that wait for success."""

    outcome: Outcome
    optional: bool = False


class Skip(NamedTuple, Generic[Id]):
    """Why a job is skipped: the edge from ``cause`` asked for ``condition`` and can no longer have it."""

    cause: Id
    condition: Condition
    outcome: Outcome


def through(skips: Mapping[Id, Skip[Id]], joins: Collection[Id]) -> dict[Id, Skip[Id]]:
    """The same, with joins looked through: what is skipped because one was, is so because of what that one was."""
    found: dict[Id, Skip[Id]] = {}
    for id, skip in skips.items():
        seen = {id}
        while skip.cause in joins and skip.cause in skips and skip.cause not in seen:
            seen.add(skip.cause)
            skip = skips[skip.cause]
        found[id] = skip
    return found


@dataclass(slots=True)
class Cascade(Generic[Id]):
    """The whole consequence of some jobs' end."""

    released: list[Id] = field(default_factory=list)
    skipped: dict[Id, Skip[Id]] = field(default_factory=dict)
    waiting: dict[Id, Counters] = field(default_factory=dict)
    """New counters of jobs that go on waiting."""
    losers: dict[Id, None] = field(default_factory=dict)
    """Those to be cancelled, because a rival of theirs has won."""


def decide(ended: Mapping[Id, Ended], edges: Iterable[Edge[Id]], blocked: Mapping[Id, Counters]) -> Cascade[Id]:
    """Follow ``ended`` through ``edges`` until nothing changes any more.

    ``blocked`` holds the counters of every job that still waits; a child that is not in it was decided before, and
    what is decided stays so. The answer does not depend on the order of ``edges``.
    """
    children: dict[Id, list[Edge[Id]]] = {}
    for edge in edges:
        children.setdefault(edge.parent, []).append(edge)
    counters = dict(blocked)
    cascade: Cascade[Id] = Cascade()
    fresh: deque[tuple[Id, Ended]] = deque(ended.items())
    while fresh:
        parent, end = fresh.popleft()
        for edge in children.get(parent, ()):
            child = edge.child
            if child not in counters:
                continue
            need, still_open = counters[child]
            satisfied = edge.passed and satisfies(end.outcome, edge.condition, optional=end.optional)
            now = Counters(need - satisfied, still_open - 1)
            if now.need <= 0:
                del counters[child]
                cascade.waiting.pop(child, None)
                cascade.released.append(child)
                cascade.losers.update(dict.fromkeys(edge.rivals))
            elif now.open < now.need:
                del counters[child]
                cascade.waiting.pop(child, None)
                cascade.skipped[child] = Skip(parent, edge.condition, end.outcome)
                fresh.append((child, Ended(Outcome.SKIPPED)))
            else:
                counters[child] = now
                cascade.waiting[child] = now
    return cascade
