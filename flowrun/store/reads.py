"""Reading, for clients and people; never on the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from flowrun.core.states import Outcome
from flowrun.store.callers import Caller
from flowrun.store.pool import Connection, Database
from flowrun.store.statement import Statements


class OutcomeRow(NamedTuple):
    """How a job ended."""

    id: UUID
    outcome: Outcome
    attempt: int
    result: str | None
    error: str | None
    cause: UUID | None


async def outcomes(database: Database, ids: Sequence[UUID]) -> list[OutcomeRow]:
    """How those of ``ids`` ended that have."""
    rows = await database.fetch("outcomes", ids)
    return [OutcomeRow(row[0], Outcome(row[1]), *row[2:]) for row in rows]


async def job(database: Database, id: UUID) -> dict[str, Any] | None:
    """One job's status, by column."""
    rows = await database.fetch("job", id)
    return dict(rows[0]) if rows else None


async def ended_jobs(database: Database, ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Of some jobs and flows that have ended, what hooks are told."""
    return [dict(row) for row in await database.fetch("ended_jobs", ids)]


async def list_failed(database: Database, *filters: Any) -> list[dict[str, Any]]:
    """The dead letter; filters as in list_failed.sql."""
    return [dict(row) for row in await database.fetch("list_failed", *filters)]


async def attempts(database: Database, id: UUID) -> list[dict[str, Any]]:
    """A job's attempts that did not succeed."""
    return [dict(row) for row in await database.fetch("attempts", id)]


async def flow(database: Database, id: UUID) -> dict[str, Any] | None:
    """One flow's status, by column."""
    rows = await database.fetch("flow", id)
    return dict(rows[0]) if rows else None


async def flow_jobs(database: Database, id: UUID) -> list[dict[str, Any]]:
    """The status of every job in a flow, those of inner flows included."""
    return [dict(row) for row in await database.fetch("flow_jobs", id)]


async def flow_nodes(database: Database, id: UUID) -> dict[str, tuple[UUID, str]]:
    """By name: id and type of every node in a flow."""
    return {name: (node, type) for name, node, type in await database.fetch("flow_names", id)}


async def flow_nodes_of(caller: Caller, sql: Statements, id: UUID) -> dict[str, tuple[UUID, str]]:
    """The same, as a transaction of somebody else's sees it."""
    rows = await caller.fetch(sql["flow_names"], id)
    return {name: (node if isinstance(node, UUID) else UUID(str(node)), type) for name, node, type in rows}


async def standing(database: Database, id: UUID) -> dict[str, Any] | None:
    """Where a job stands, and who could run it."""
    rows = await database.fetch("standing", id)
    return dict(rows[0]) if rows else None


async def waited_for(database: Database, id: UUID, flow_id: UUID) -> list[dict[str, Any]]:
    """What a job of a flow waits for."""
    return [dict(row) for row in await database.fetch("waited_for", id, flow_id)]


async def open_gates(database: Database, limit: int) -> list[dict[str, Any]]:
    """Gates that wait for a signal, the oldest first."""
    return [dict(row) for row in await database.fetch("gates", limit)]


async def flow_events(database: Database, id: UUID) -> tuple[list[dict[str, Any]], float]:
    """All that has happened in a flow, in order of time, and the seconds that it took the server to look."""
    rows = [dict(row) for row in await database.fetch("flow_events", id)]
    return rows, max((row.pop("took") for row in rows), default=0.0)


async def flow_sinks(database: Database, id: UUID) -> dict[str, tuple[UUID, str, str | None]]:
    """Id, type and result (as JSON) of a flow's last nodes, by name."""
    return {name: (job, type, result) for job, name, type, result in await database.fetch("flow_sinks", id)}


async def flow_output(database: Database, id: UUID) -> str | None:
    """The type of the node whose result is the flow's, if it is one node's."""
    rows = await database.fetch("flow_output", id)
    return rows[0][0] if rows else None


async def flow_failures(database: Database, id: UUID) -> list[tuple[UUID, str, Outcome, str | None]]:
    """Id, name, outcome and error of the jobs because of which a flow did not succeed."""
    rows = await database.fetch("flow_failures", id)
    return [(job, name, Outcome(outcome), error) for job, name, outcome, error in rows]


async def flow_waits(database: Database, id: UUID) -> list[tuple[str, str, int]]:
    """Of the nodes of a flow: name, name of one it waits for, condition."""
    return [(child, parent, condition) for child, parent, condition in await database.fetch("flow_waits", id)]


async def audited(database: Database, id: UUID) -> list[dict[str, Any]]:
    """What people did to a flow or a job."""
    return [dict(row) for row in await database.fetch("audited", id)]


async def list_flows(database: Database, *filters: object) -> list[dict[str, Any]]:
    """Outermost flows, the newest first."""
    return [dict(row) for row in await database.fetch("list_flows", *filters)]


async def list_jobs(database: Database, *filters: object) -> list[dict[str, Any]]:
    """Jobs, the newest first."""
    return [dict(row) for row in await database.fetch("list_jobs", *filters)]


async def picked(database: Database, name: str, *filters: object) -> list[Any]:
    """Jobs that pass filters, by one of the statements ``pick_...``.

    By indexes alone: where tables were filled a moment ago their statistics make loops over whole tables look cheap
    (20,000 jobs of a flow: 40 s).
    """

    async def verb(connection: Connection) -> list[Any]:
        async with connection.transaction(readonly=True):
            await connection.execute(database.sql["pin_plans"])
            rows: list[Any] = await connection.fetch(database.sql[name], *filters)
            return rows

    return await database.repeat(verb)


async def list_workers(database: Database) -> list[dict[str, Any]]:
    """Workers that live."""
    return [dict(row) for row in await database.fetch("list_workers")]
