"""Taking jobs to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Claimed
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

HEAD = (-1, UUID(int=0))
"""Below every mark."""


@dataclass(slots=True)
class Marks:
    """The low-water mark of each queue: what was claimed last. Claims start there, not at the head of the index."""

    queues: Sequence[str]
    at: dict[str, tuple[int, UUID]] = field(default_factory=dict)

    def rewind(self) -> None:
        """Start at the head again: something more urgent, or older, may have come."""
        self.at.clear()

    def columns(self, turn: int) -> tuple[list[str], list[int], list[UUID]]:
        """Queues, priorities and ids for the claim; each turn begins with the next queue."""
        shift = turn % len(self.queues) if self.queues else 0
        queues = [*self.queues[shift:], *self.queues[:shift]]
        marks = [self.at.get(queue, HEAD) for queue in queues]
        return queues, [priority for priority, _ in marks], [id for _, id in marks]

    def advance(self, jobs: Sequence[Claimed]) -> None:
        """Remember the last job of each queue; ``jobs`` come ordered within their queue."""
        for job in jobs:
            self.at[job.queue] = (job.priority, job.id)


async def claim(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    lease: int,
    limit: int,
    types: Sequence[str],
    marks: Marks,
    turn: int,
    changes: int = 0,
) -> list[Claimed]:
    """Up to ``limit`` ready jobs, in a lease numbered ``lease``; none for who does not know all ``changes`` of
    queues."""
    rows = await connection.fetch(sql["claim"], worker_id, lease, limit, types, *marks.columns(turn), changes)
    jobs = [Claimed(row, lease) for row in rows]
    marks.advance(jobs)
    return jobs


@dataclass(slots=True)
class Inputs:
    """What jobs need from what is finished already."""

    results: dict[UUID, str | None] = field(default_factory=dict)
    """By parent: its result as JSON; None if it did not succeed. No entry: it has not ended."""
    spoiled: dict[UUID, int] = field(default_factory=dict)
    """By flow: the worst outcome of its jobs, where one did not succeed."""


async def inputs(
    connection: Connection, sql: Statements, *, wanted: Collection[UUID], flows: Sequence[UUID | None]
) -> Inputs:
    """Results of the ``wanted`` parents, and the fate of ``flows``."""
    found = Inputs()
    for kind, id, result, outcome in await connection.fetch(sql["inputs"], list(wanted), flows):
        if kind == 0:
            found.results[id] = result
        else:
            found.spoiled[id] = outcome
    return found


async def note_unseen(connection: Connection, sql: Statements, unseen: Mapping[UUID, Collection[UUID]]) -> None:
    """Keep with jobs which of their parents had not ended when they began."""
    lists = [codec.dump(sorted(map(str, parents))) for parents in unseen.values()]
    await connection.execute(sql["note_unseen"], list(unseen), lists)


async def ended(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> dict[UUID, tuple[int, bool]]:
    """Of the jobs that have ended: outcome, and whether they are optional."""
    return {id: (outcome, optional) for id, outcome, optional in await connection.fetch(sql["ended"], ids)}


async def compensated(connection: Connection, sql: Statements, flows: Sequence[UUID]) -> dict[UUID, str]:
    """How the compensations of flows went, where any ran."""
    return dict(await connection.fetch(sql["compensated"], flows))


async def late(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> set[UUID]:
    """Of some jobs, those whose time to start is over."""
    return {row[0] for row in await connection.fetch(sql["late_starts"], ids)}
