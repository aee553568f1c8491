"""A compiled dispatch: rows, ready to be written, in topological order."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from flowrun.core.states import Deadline


class JobRow(NamedTuple):
    """A row of ``jobs``, in the order of its columns."""

    id: UUID
    flow_id: UUID | None
    kind: int
    name: str | None
    queue: str
    type: str
    args: str
    sources: list[UUID] | None
    bindings: str | None
    priority: int
    optional: bool
    delay: float | None
    run_at: datetime | None
    options: str | None
    parents: list[UUID] | None = None


EdgeRow: TypeAlias = "tuple[UUID, UUID, int]"
"""A row of ``edges``: parent, child, condition. (Plain tuples: a large flow has many.)"""

BlockedRow: TypeAlias = "tuple[UUID, int, int]"
"""A row of ``blocked``: job, need, open."""


TestRow: TypeAlias = "tuple[UUID, UUID, int, str]"
"""A row of ``edges`` that asks more than a condition: parent, child, number, test (JSON)."""


class DeadlineRow(NamedTuple):
    """A row of ``deadlines``: due ``delay`` seconds from now, or at a moment."""

    id: UUID
    kind: Deadline
    delay: float | None
    due_at: datetime | None


class FlowRow(NamedTuple):
    """A row of ``flows``."""

    id: UUID
    root_id: UUID
    name: str
    tags: list[str]
    dispatched_by: UUID | None = None


class KeyRow(NamedTuple):
    """A key that a job or a flow asks for."""

    scope: str
    key: str
    id: UUID
    """The job's or the flow's."""
    on_conflict: str
    ttl: float | None
    """Seconds it is held; None: as long as what it was given to is stored."""


LARGE = 500
"""Jobs from which on a flow is large: its rows are copied in. Below, one statement with arrays is faster."""


class Source(Protocol):
    """The many rows of a large flow, each made when it is asked for: again, if they are written again."""

    @property
    def size(self) -> int:
        """How many jobs there are."""
        ...

    def jobs(self) -> Iterator[JobRow]:
        """The rows of ``jobs``."""
        ...

    def edges(self) -> Iterator[EdgeRow]:
        """The rows of ``edges``, but for tests."""
        ...

    def blocked(self) -> Iterator[BlockedRow]:
        """The rows of ``blocked``."""
        ...

    def free(self) -> list[JobRow]:
        """The jobs that wait for no other."""
        ...

    def alike(self) -> Iterator[tuple[JobRow, bytes, str, str]]:
        """Jobs that differ in id, name and arguments only: a row like theirs (the same one for many), and these."""
        ...

    def others(self) -> Iterator[JobRow]:
        """The other jobs."""
        ...

    def edges_by_parent(self, tails: Sequence[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
        """The edges: id of a parent, and ids of children, each followed by what ``tails`` has for the condition."""
        ...

    def counters(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """The rows of ``blocked``: id, and both its numbers."""
        ...


@dataclass(slots=True)
class Plan:
    """What one dispatch writes. While there is a ``source``, it has the rows of jobs, edges and counters."""

    jobs: list[JobRow] = field(default_factory=list)
    edges: list[EdgeRow] = field(default_factory=list)
    blocked: list[BlockedRow] = field(default_factory=list)
    flows: list[FlowRow] = field(default_factory=list)
    tests: list[TestRow] = field(default_factory=list)
    deadlines: list[DeadlineRow] = field(default_factory=list)
    free: list[JobRow] = field(default_factory=list)
    """The jobs that wait for no other."""
    keys: list[KeyRow] = field(default_factory=list)
    """At most one for each job without a flow, or one for the flow."""
    source: Source | None = None

    def made(self) -> Plan:
        """The same, with all its rows in lists."""
        if (source := self.source) is not None:
            self.jobs, self.edges, self.blocked = [*source.jobs()], [*source.edges()], [*source.blocked()]
            free = {job.id for job in source.free()}
            self.free = [job for job in self.jobs if job.id in free]
            self.source = None
        return self

    @property
    def size(self) -> int:
        """How many jobs it has."""
        return len(self.jobs) if self.source is None else self.source.size

    def starters(self) -> Sequence[JobRow]:
        """The jobs that wait for no other."""
        return self.free if self.source is None else self.source.free()

    def without(self, ids: Container[UUID]) -> Plan:
        """What is left to write when ``ids`` (jobs without a flow, or the flow) are not to be."""
        if self.flows:
            return Plan() if self.flows[0].root_id in ids else self
        jobs = [job for job in self.jobs if job.id not in ids]
        deadlines = [deadline for deadline in self.deadlines if deadline.id not in ids]
        return Plan(jobs=jobs, free=jobs, deadlines=deadlines)

    def earlier(self, lead: timedelta) -> Plan:
        """The same, with all moments so much earlier: a test names them by a clock that it has moved on."""
        jobs = {
            job.id: job if job.run_at is None else job._replace(run_at=job.run_at - lead)
            for job in (*self.jobs, *self.free)
        }
        deadlines = [one if one.due_at is None else one._replace(due_at=one.due_at - lead) for one in self.deadlines]
        return replace(
            self,
            jobs=[jobs[job.id] for job in self.jobs],
            free=[jobs[job.id] for job in self.free],
            deadlines=deadlines,
        )

    @property
    def special(self) -> bool:
        """Whether more than one statement writes it: it has keys, tests or deadlines, which few have."""
        return bool(self.keys or self.tests or self.deadlines)

    def queues(self) -> set[str]:
        """The queues in which something is ready at once."""
        return {job.queue for job in self.starters() if job.delay is None and job.run_at is None}

    def scheduled(self) -> bool:
        """Whether something waits for a moment."""
        return bool(self.deadlines) or any(job.delay is not None or job.run_at is not None for job in self.starters())
