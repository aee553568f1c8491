"""What running jobs waited for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from flowrun.core import parents as core_parents
from flowrun.core.parents import Ancestor, Child, Parents, Scope
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


async def parents(
    connection: Connection, sql: Statements, jobs: Mapping[UUID, Collection[UUID]]
) -> Mapping[UUID, Parents]:
    """The parents of each of ``jobs`` (nodes of flows), which come with those that they are not to see."""
    found = _Found()
    await found.read(connection, sql, [*jobs], [])
    unknown = [child.id for child in found.children.values() if child.parents is None]
    if unknown:
        behind: dict[UUID, list[UUID]] = {id: [] for id in unknown}
        for child, parent in await connection.fetch(sql["parents_by_edges"], unknown):
            behind.setdefault(child, []).append(parent)
        more = list({parent for parents in behind.values() for parent in parents})
        await found.read(connection, sql, [], more)
        found.know(behind)
    children = [child._replace(unseen=jobs[child.id]) for child in found.children.values()]
    return {child.id: core_parents.name(child, found.ancestors, found.scopes) for child in children}


class _Found:
    """The rows of parents.sql."""

    def __init__(self) -> None:
        self.children: dict[UUID, Child] = {}
        self.ancestors: dict[UUID, Ancestor] = {}
        self.scopes: dict[UUID, Scope] = {}

    async def read(self, connection: Connection, sql: Statements, jobs: Sequence[UUID], more: Sequence[UUID]) -> None:
        """The ``jobs`` and their parents, and ``more`` parents."""
        for row in await connection.fetch(sql["parents"], jobs, more):
            note, id, flow_id, kind, name, title, parents, outcome, finished_at, result, error, cause = row
            if note == 0:
                self.children[id] = Child(id, flow_id, parents)
            elif note == 1:
                self.ancestors[id] = Ancestor(
                    id, flow_id, kind, name, parents or (), outcome, finished_at, result, error, cause
                )
            else:
                self.scopes[id] = Scope(name, title)

    def know(self, parents: Mapping[UUID, Sequence[UUID]]) -> None:
        """What children and joins wait for, from the edges."""
        for id, behind in parents.items():
            if id in self.children:
                self.children[id] = self.children[id]._replace(parents=behind)
            if id in self.ancestors:
                self.ancestors[id] = self.ancestors[id]._replace(parents=behind)
