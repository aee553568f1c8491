"""What a job waited for, as its handler sees it: joins seen through, names as written, nothing that came late."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from flowrun.core.states import Kind


class Child(NamedTuple):
    """A job that asks for its parents."""

    id: UUID
    flow_id: UUID | None
    parents: Sequence[UUID] | None
    """Those it waits for directly; None: they were not recorded with it."""
    unseen: Collection[UUID] = ()
    """Those that had not ended when its first attempt began: they have not, for all its attempts alike."""


class Ancestor(NamedTuple):
    """A job that another waits for, with its outcome if it has one."""

    id: UUID
    flow_id: UUID | None
    kind: int
    name: str
    parents: Sequence[UUID]
    """Of a join: those it waits for itself."""
    outcome: int | None = None
    finished_at: datetime | None = None
    result: str | None = None
    error: str | None = None
    """JSON, as the result."""
    cause: UUID | None = None


class Scope(NamedTuple):
    """A flow, as far as names go: its own, and what the names of its nodes begin with."""

    name: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Parents:
    """A job's parents by name."""

    written: Mapping[str, Ancestor]
    """By the name that was written in the flow. Of two flows around a job, the nearer one's node has it."""
    full: Mapping[str, Ancestor]
    """By the name that is stored, which has the names of inner flows before it."""

    def open(self) -> set[UUID]:
        """Those that had not ended."""
        return {one.id for one in self.full.values() if one.outcome is None}


def name(child: Child, found: Mapping[UUID, Ancestor], scopes: Mapping[UUID, Scope]) -> Parents:
    """The parents of ``child``, out of the jobs ``found``; ``scopes`` are the flows that these and it are in."""

    def distance(one: Ancestor) -> tuple[bool, int]:
        return one.flow_id != child.flow_id, -len(_prefix(one, scopes))

    nearest = sorted(_through(child.parents or (), found), key=distance)
    written: dict[str, Ancestor] = {}
    full: dict[str, Ancestor] = {}
    for one in nearest:
        seen = Ancestor(*one[:5]) if one.id in child.unseen else one
        if one.id == child.flow_id:  # the end of its own flow: it is a callback
            written.setdefault(scopes[one.id].name, seen)
        else:
            written.setdefault(one.name[len(_prefix(one, scopes)) :], seen)
        full.setdefault(one.name, seen)
    return Parents(written, full)


def _through(direct: Sequence[UUID], found: Mapping[UUID, Ancestor]) -> Iterator[Ancestor]:
    """The real ones, each once: of a join those behind it."""
    stack = list(reversed(direct))
    seen = set[UUID]()
    while stack:
        one = found.get(stack.pop())
        if one is None or one.id in seen:
            continue
        seen.add(one.id)
        if one.kind == Kind.JOIN:
            stack.extend(reversed(one.parents))
        elif one.kind != Kind.VERDICT:  # nobody has written it
            yield one


def _prefix(one: Ancestor, scopes: Mapping[UUID, Scope]) -> str:
    return "" if one.flow_id is None else scopes[one.flow_id].prefix
