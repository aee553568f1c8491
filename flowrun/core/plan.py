"""A compiled dispatch: rows, ready to be written, in topological order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID


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


EdgeRow: TypeAlias = "tuple[UUID, UUID, int]"
"""A row of ``edges``: parent, child, condition. (Plain tuples: a large flow has many.)"""

BlockedRow: TypeAlias = "tuple[UUID, int, int]"
"""A row of ``blocked``: job, need, open."""


class FlowRow(NamedTuple):
    """A row of ``flows``."""

    id: UUID
    root_id: UUID
    name: str
    tags: list[str]


@dataclass(slots=True)
class Plan:
    """What one dispatch writes."""

    jobs: list[JobRow] = field(default_factory=list)
    edges: list[EdgeRow] = field(default_factory=list)
    blocked: list[BlockedRow] = field(default_factory=list)
    flows: list[FlowRow] = field(default_factory=list)
    free: list[JobRow] = field(default_factory=list)
    """The jobs that wait for no other."""

    def queues(self) -> set[str]:
        """The queues in which something is ready at once."""
        return {job.queue for job in self.free if job.delay is None and job.run_at is None}

    def scheduled(self) -> bool:
        """Whether something waits for a moment."""
        return any(job.delay is not None or job.run_at is not None for job in self.free)
