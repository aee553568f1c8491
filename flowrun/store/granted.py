"""Dispatching by a role that was granted that and no more: a function of the schema writes for it, and checks what it
is asked for. Who may write the tables writes them.

So whoever may only dispatch cannot tie what it dispatches to the jobs, flows and keys of others: see docs/security.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from flowrun import codec
from flowrun.core.plan import DeadlineRow, JobRow, KeyRow, Plan
from flowrun.errors import ConfigurationError
from flowrun.store import keys
from flowrun.store.callers import AsyncpgCaller, Caller
from flowrun.store.pool import Connection, Database, Forbidden
from flowrun.store.statement import Statements

T = TypeVar("T")

LARGEST = 500_000_000
"""Characters of a plan: PostgreSQL takes no value of 1 GiB, and a connection that sends one is closed."""

_JSON = ("args", "bindings", "options")


async def may_write(caller: Caller, sql: Statements) -> bool:
    """Whether the role of ``caller`` writes the tables itself. Where there are none, what follows says so."""
    rows = await caller.fetch(sql["may_write"], sql.schema)
    return not rows or bool(rows[0][0])


async def find_out(database: Database) -> None:
    """Ask for the role's rights when an app opens, so that its first dispatch does not wait for that."""
    await database.repeat(partial(_writes, database))


async def _writes(database: Database, connection: Connection) -> bool:
    """Whether the role of ``database`` writes the tables itself; asked where that is not known."""
    if database.writes is None:
        database.writes = await may_write(AsyncpgCaller(connection, nullcontext), database.sql)
    return database.writes


async def written(database: Database, verb: Callable[[Connection, bool], Awaitable[T]]) -> T:
    """Run ``verb`` on a connection of the pool, told whether its role writes the tables itself.

    That is found out once. Where it turns out to be otherwise (`flowrun roles` was run meanwhile), once more.
    """
    known = database.writes is not None

    async def told(connection: Connection) -> T:
        return await verb(connection, await _writes(database, connection))

    try:
        return await database.repeat(told)
    except Forbidden:
        database.writes = None
        if not known:
            raise
    return await database.repeat(told)


async def dispatch(
    caller: Caller, sql: Statements, plan: Plan, messages: Sequence[tuple[str, str]] = ()
) -> dict[UUID, UUID]:
    """Have a plan written; by id of duplicates, whose key it is. All or nothing, and harmless when sent again.

    ``messages`` (channel and payload) are heard when it commits. Raises DuplicateKey.
    """
    duplicates: dict[UUID, UUID] = {}
    if not plan.keys:
        await _call(caller, sql, plan, (), messages)
        return duplicates
    taking, repeated = keys.distinct(plan.keys)
    wanted = {key.id: key for key in taking}
    once = plan.without({held.wanted.id for held in repeated}) if repeated else plan
    async with caller.transaction():
        for id, holder in await _call(caller, sql, once, taking, messages):
            keys.duplicate(wanted[id], holder, duplicates)
        keys.repeat(repeated, duplicates)
    return duplicates


async def nodes(caller: Caller, sql: Statements, key: KeyRow, flow: UUID) -> dict[str, tuple[UUID, str]]:
    """By name: id and type of every node of ``flow``, which has ``key``."""
    rows = await caller.fetch(sql["nodes_of"], key.scope, key.key, flow)
    return {name: (keys.uuid(id), type) for name, id, type in rows}


async def _call(
    caller: Caller, sql: Statements, plan: Plan, taking: Sequence[KeyRow], messages: Sequence[tuple[str, str]]
) -> list[tuple[UUID, UUID]]:
    text = as_text(plan, taking)
    columns = [[channel for channel, _ in messages], [payload for _, payload in messages]]
    rows = await caller.fetch(sql["dispatch"], text, *columns)
    return [(keys.uuid(id), keys.uuid(holder)) for id, holder in rows]


def as_text(plan: Plan, taking: Sequence[KeyRow]) -> str:
    """A plan as the function reads it. Raises ConfigurationError where it is too large."""
    plan = plan.made()
    edges: list[str] = [_object(parent_id=one[0], child_id=one[1], condition=one[2]) for one in plan.edges]
    for parent, child, condition, test in plan.tests:
        edges.append(_with(_object(parent_id=parent, child_id=child, condition=condition), "test", test))
    parts = {
        "jobs": [_job(row) for row in plan.jobs],
        "flows": [_object(id=row.id, name=row.name, tags=row.tags) for row in plan.flows],
        "edges": edges,
        "blocked": [_object(id=id, need=need, open=open) for id, need, open in plan.blocked],
        "deadlines": [_deadline(row) for row in plan.deadlines],
        "keys": [_object(**row._asdict()) for row in taking],
    }
    root = f'"{plan.flows[0].root_id}"' if plan.flows else "null"
    text = f'{{"root":{root},' + ",".join(f'"{name}":[{",".join(rows)}]' for name, rows in parts.items()) + "}"
    if len(text) > LARGEST:
        raise ConfigurationError(
            f"a role that may only dispatch can write at most {LARGEST:,} characters at once, these are {len(text):,}: "
            "dispatch less at once, or with a worker's role"
        )
    return text


def _job(row: JobRow) -> str:
    stored = row._asdict()
    text = _object(**{name: value for name, value in stored.items() if name not in _JSON})
    for name in _JSON:
        if stored[name] is not None:
            text = _with(text, name, stored[name])
    return text


def _deadline(row: DeadlineRow) -> str:
    return _object(id=row.id, kind=int(row.kind), delay=row.delay, due_at=row.due_at)


def _object(**fields: Any) -> str:
    return codec.dump({name: _plain(value) for name, value in fields.items() if value is not None})


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _with(text: str, name: str, json: str) -> str:
    """A JSON object with one more field, which is JSON already."""
    return f'{text[:-1]},"{name}":{json}}}'
