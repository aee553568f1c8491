"""Plans to rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from operator import itemgetter
from typing import Any
from uuid import UUID

from flowrun.core.attempt import Claimed
from flowrun.core.plan import LARGE, JobRow, Plan, Source
from flowrun.store import copied, keys
from flowrun.store.callers import AsyncpgCaller, Caller
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

COPY_FROM = LARGE

_SINGLE = itemgetter(0, 4, 5, 6, 9, 10, 11, 12, 13)
_READY = itemgetter(0, 4, 5, 6, 9, 10, 13)


def is_one_statement(plan: Plan) -> bool:
    """Whether one statement writes it."""
    return not plan.special and (not plan.flows or plan.size < COPY_FROM)


async def insert_plan(
    connection: Connection, sql: Statements, plan: Plan, messages: Sequence[tuple[str, str]] = ()
) -> None:
    """Write a plan without keys, in one statement or one transaction. Harmless when sent again.

    ``messages`` (channel and payload) are for what one statement writes: they are heard when it commits.
    """
    if plan.special:
        async with connection.transaction():
            await _insert_rest(AsyncpgCaller(connection, nullcontext, own=True), sql, plan)
    elif plan.flows:
        await insert_flow(connection, sql, plan, messages)
    elif plan.size:
        await insert_jobs(connection, sql, plan.jobs, messages)


async def insert_for(
    caller: Caller, sql: Statements, plan: Plan, messages: Sequence[tuple[str, str]] = ()
) -> dict[UUID, UUID]:
    """Write a plan on a connection whose transaction may be somebody else's; by id of duplicates, whose key it is.

    With keys, all or nothing of it, and nothing at all of a duplicate. Raises DuplicateKey. Harmless when sent again.
    ``messages`` (channel and payload) are for what one statement writes on such a connection: heard when it commits.
    """
    if not plan.special:
        await _insert_rest(caller, sql, plan, messages)
        return {}
    async with caller.transaction():
        duplicates = await keys.take(caller, sql, plan.keys) if plan.keys else {}
        await _insert_rest(caller, sql, plan.without(duplicates) if duplicates else plan)
    return duplicates


async def _insert_rest(caller: Caller, sql: Statements, plan: Plan, messages: Sequence[tuple[str, str]] = ()) -> None:
    if not plan.size:
        return
    if not plan.flows:
        await caller.fetch(sql["insert_jobs"], *_single_columns(plan.jobs), *_columns(messages))
    elif caller.copies is not None and plan.size >= COPY_FROM:
        await _copy_flow(caller.copies, sql, plan)
    else:
        await caller.fetch(sql["insert_flow"], *_flow_columns(plan), *_columns(messages))
    if plan.tests:
        await caller.fetch(sql["insert_tests"], *map(list, zip(*plan.tests, strict=True)))
    if plan.deadlines:
        await caller.fetch(sql["insert_deadlines"], *map(list, zip(*plan.deadlines, strict=True)))


async def insert_nodes(connection: Connection, sql: Statements, plan: Plan, root: UUID) -> None:
    """Write new nodes of the stored flow ``root``, which is locked. The caller holds the transaction.

    Those that wait for nothing do not run before they are released.
    """
    if plan.flows:
        flows = [flow._replace(root_id=root) for flow in plan.flows]
        await connection.execute(sql["insert_flows"], *_flows(Plan(flows=flows)))
    if len(plan.jobs) >= COPY_FROM:
        await _copy_rows(connection, sql, plan)
    else:
        jobs, others = _node_columns(plan)
        await connection.execute(sql["insert_nodes"], *jobs, *others)
    if plan.tests:
        await connection.execute(sql["insert_tests"], *map(list, zip(*plan.tests, strict=True)))
    if plan.deadlines:
        await connection.execute(sql["insert_deadlines"], *map(list, zip(*plan.deadlines, strict=True)))


async def insert_jobs(
    connection: Connection, sql: Statements, jobs: Sequence[JobRow], messages: Sequence[tuple[str, str]] = ()
) -> None:
    """Write jobs without a flow, in one statement. Harmless when sent again.

    ``messages`` (channel and payload) are heard when it commits.
    """
    if _is_one_ready(jobs) and len(messages) < 2:
        await connection.execute(sql["insert_job"], *_READY(jobs[0]), *(messages[0] if messages else (None, None)))
    else:
        await connection.execute(sql["insert_jobs"], *_single_columns(jobs), *_columns(messages))


async def insert_taken(
    connection: Connection,
    sql: Statements,
    jobs: Sequence[JobRow],
    *,
    worker_id: UUID,
    lease: int,
    take: Sequence[UUID],
    changes: int,
) -> list[Claimed]:
    """The same, and put those of ``take`` into a lease of a worker; what it has then. Whoever sends it again gives the
    lease back first."""
    if _is_one_ready(jobs) and take:
        rows = await connection.fetch(sql["insert_job_taken"], *_READY(jobs[0]), worker_id, lease, changes)
    else:
        rows = await connection.fetch(sql["insert_taken"], *_single_columns(jobs), worker_id, lease, take, changes)
    return [Claimed(row, lease) for row in rows]


async def insert_flow(
    connection: Connection, sql: Statements, plan: Plan, messages: Sequence[tuple[str, str]] = ()
) -> None:
    """Write a compiled flow, in one statement or one transaction. Harmless when sent again."""
    if plan.size < COPY_FROM:
        await connection.execute(sql["insert_flow"], *_flow_columns(plan), *_columns(messages))
    else:
        async with connection.transaction():
            await _copy_flow(connection, sql, plan)


async def notify(caller: Caller, sql: Statements, messages: Sequence[tuple[str, str]]) -> None:
    """Send notifications (channel and payload) on ``caller``: they are heard when its transaction commits."""
    if messages:
        await caller.fetch(sql["wake"], *_columns(messages))


def _is_one_ready(jobs: Sequence[JobRow]) -> bool:
    """What most dispatch who dispatch one by one."""
    return len(jobs) == 1 and jobs[0].delay is None and jobs[0].run_at is None


def _single_columns(jobs: Sequence[JobRow]) -> list[list[Any]]:
    return [list(column) for column in zip(*map(_SINGLE, jobs), strict=True)]


def _columns(messages: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [[channel for channel, _ in messages], [payload for _, payload in messages]]


def _flow_columns(plan: Plan) -> list[Any]:
    jobs, others = _node_columns(plan.made())
    return [*jobs[:14], *others, *_flows(plan), [job.id for job in plan.free], jobs[14]]


def _node_columns(plan: Plan) -> tuple[list[Any], list[Any]]:
    jobs = [list(column) for column in zip(*plan.jobs, strict=True)]
    jobs[7] = [_array(sources) for sources in jobs[7]]
    jobs[14] = [_array(ids) for ids in jobs[14]]
    others = [list(column) for rows in (plan.edges, plan.blocked) for column in _transposed(rows)]
    return jobs, others


def _transposed(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return list(zip(*rows, strict=True)) if rows else [(), (), ()]


def _flows(plan: Plan) -> list[Any]:
    flows = plan.flows
    return [
        [flow.id for flow in flows],
        flows[0].root_id,
        [flow.name for flow in flows],
        [_array(flow.tags) for flow in flows],
        flows[0].dispatched_by,
    ]


async def _copy_flow(connection: Connection, sql: Statements, plan: Plan) -> None:
    """Inside a transaction."""
    fresh = await connection.fetchval(sql["insert_flows"], *_flows(plan))
    if fresh is not None:
        if plan.source is None:
            await _copy_rows(connection, sql, plan)
        else:
            await _copy_source(connection, sql, plan.source)
        await connection.execute(sql["copied_free"], [job.id for job in plan.starters()])


async def _copy_rows(connection: Connection, sql: Statements, plan: Plan) -> None:
    for table, columns, rows in (
        ("jobs", JobRow._fields, plan.jobs),
        ("edges", ("parent_id", "child_id", "condition"), plan.edges),
        ("blocked", ("id", "need", "open"), plan.blocked),
    ):
        await connection.copy_records_to_table(table, schema_name=sql.schema, columns=columns, records=rows)


async def _copy_source(connection: Connection, sql: Statements, source: Source) -> None:
    """Rows are made while those before them are sent, and the server is at work on those before these."""
    for table, columns, rows in (
        ("jobs", copied.JOBS, copied.jobs(source.alike())),
        ("edges", copied.EDGES, copied.edges(source)),
        ("blocked", copied.BLOCKED, copied.blocked(source.counters())),
    ):
        await connection.copy_to_table(
            table, schema_name=sql.schema, columns=columns, source=copied.sent(rows), format="binary", rows=source.size
        )
    await connection.copy_records_to_table(
        "jobs", schema_name=sql.schema, columns=JobRow._fields, records=[*source.others()]
    )


def _array(items: Sequence[Any] | None) -> str | None:
    """An array as PostgreSQL writes it: arrays of arrays of different lengths cannot be sent."""
    if items is None:
        return None
    return "{" + ",".join('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items) + "}"
