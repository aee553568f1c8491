"""Plans to rows."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from flowrun.core.plan import JobRow, Plan
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

COPY_FROM = 500
"""From so many jobs on a flow is copied in; below, one statement with arrays is faster."""

_SINGLE = itemgetter(0, 4, 5, 6, 9, 10, 11, 12, 13)


async def insert_jobs(connection: Connection, sql: Statements, jobs: Sequence[JobRow]) -> None:
    """Write jobs without a flow, in one statement. Harmless when sent again."""
    columns = zip(*map(_SINGLE, jobs), strict=True)
    await connection.execute(sql["insert_jobs"], *columns)


async def insert_flow(connection: Connection, sql: Statements, plan: Plan) -> None:
    """Write a compiled flow, in one statement or one transaction. Harmless when sent again."""
    if len(plan.jobs) < COPY_FROM:
        await connection.execute(sql["insert_flow"], *_flow_columns(plan))
    else:
        await _copy_flow(connection, sql, plan)


def _flow_columns(plan: Plan) -> list[Any]:
    jobs = [list(column) for column in zip(*plan.jobs, strict=True)]
    jobs[7] = [_array(sources) for sources in jobs[7]]
    return [
        *jobs,
        [edge[0] for edge in plan.edges],
        [edge[1] for edge in plan.edges],
        [edge[2] for edge in plan.edges],
        [row[0] for row in plan.blocked],
        [row[1] for row in plan.blocked],
        [row[2] for row in plan.blocked],
        *_flows(plan),
        [job.id for job in plan.free],
    ]


def _flows(plan: Plan) -> list[Any]:
    flows = plan.flows
    return [
        [flow.id for flow in flows],
        flows[0].root_id,
        [flow.name for flow in flows],
        [_array(flow.tags) for flow in flows],
    ]


async def _copy_flow(connection: Connection, sql: Statements, plan: Plan) -> None:
    async with connection.transaction():
        fresh = await connection.fetchval(sql["insert_flows"], *_flows(plan))
        if fresh is None:
            return
        for table, columns, rows in (
            ("jobs", JobRow._fields, plan.jobs),
            ("edges", ("parent_id", "child_id", "condition"), plan.edges),
            ("blocked", ("id", "need", "open"), plan.blocked),
        ):
            await connection.copy_records_to_table(table, schema_name=sql.schema, columns=columns, records=rows)
        await connection.execute(sql["copied_free"], [job.id for job in plan.free])


def _array(items: Sequence[Any] | None) -> str | None:
    """An array as PostgreSQL writes it: arrays of arrays of different lengths cannot be sent."""
    if items is None:
        return None
    return "{" + ",".join('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items) + "}"
