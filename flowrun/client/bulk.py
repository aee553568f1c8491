"""The same done to all that pass a filter: found at once, then done in batches, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from flowrun.client import control
from flowrun.client.shield import shielded
from flowrun.errors import ConfigurationError, NotFound, NotPossible
from flowrun.store import bulk as store
from flowrun.store import control as store_control
from flowrun.store import prune
from flowrun.store.bulk import By
from flowrun.store.edits import Edit
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection
from flowrun.store.prune import Filter, Removed, Sweep

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.store.statement import Statements

BATCH = 1000
"""Jobs in one transaction."""
ALL = 2**62
"""No limit."""

Verb: TypeAlias = "Callable[[Connection, Statements, UUID | None, Sequence[UUID], Settled], Awaitable[list[UUID]]]"


def filtered(what: str, **filters: Any) -> None:
    """Raise ConfigurationError where no filter is given: it would be all there is."""
    if all(value is None for value in filters.values()):
        raise ConfigurationError(f"{what} needs one filter at least: {', '.join(f'{name}=' for name in filters)}")


async def cancel(client: Client, found: Sequence[Any], by: By) -> list[UUID]:
    """Cancel jobs (rows that begin with id and outermost flow); those that were cancelled or asked to stop."""
    done: list[UUID] = []
    sql = client.database.sql
    for root, rows in _parts(found, 1):
        steps = _steps(sorted(row[0] for row in rows))
        parents = await _parents(client, root, steps)
        for ids, among in zip(steps, parents, strict=True):
            with suppress(NotFound, NotPossible):
                done += await control.do(client, partial(_cancel, sql, root, ids, among, by))
    return done


async def _cancel(
    sql: Statements,
    root: UUID | None,
    ids: Sequence[UUID],
    among: Sequence[UUID] | None,
    by: By,
    connection: Connection,
    settled: Settled,
) -> list[UUID]:
    if root is None:
        return await store.cancel_singles(connection, sql, ids, by, settled)
    return await store_control.cancel_nodes(connection, sql, root, ids, by, settled, among)


async def _parents(
    client: Client, root: UUID | None, steps: Sequence[Sequence[UUID]]
) -> Sequence[Sequence[UUID] | None]:
    """What the jobs of each step wait for, where that is read for all steps at once."""
    if root is None or len(steps) == 1:
        return [None] * len(steps)
    sql = client.database.sql
    return await shielded(
        client.database.repeat(lambda connection: store.parents_in_steps(connection, sql, root, steps))
    )


async def retry(
    client: Client, found: Sequence[Any], args: Mapping[str, Any] | None, drop: Sequence[str], by: By
) -> list[UUID]:
    """Run jobs again (rows of id, outermost flow, type), with ``args`` to replace, and others to drop; those that do.

    Raises InvalidArguments, before anything is done, where a handler is known that does not take them.
    """
    done: list[UUID] = []
    edited = args is not None or bool(drop)
    parts = _parts(found, 2) if edited else [("", found)]
    edits = {type: client.edited(type, args, drop) for type, _ in parts} if edited else {}
    for type, rows in parts:
        edit = edits.get(type)

        async def verb(
            connection: Connection,
            sql: Statements,
            root: UUID | None,
            ids: Sequence[UUID],
            settled: Settled,
            edit: Edit | None = edit,
        ) -> list[UUID]:
            if root is None:
                return await store.retry_singles(connection, sql, ids, edit, by, settled)
            return await store_control.retry_nodes(connection, sql, root, ids, edit, by, settled)

        done += await _each(client, rows, verb)
    return done


async def remove(client: Client, what: Filter, *, dry_run: bool = False) -> Removed:
    """Remove what passes the filter, or only find it."""
    removed = Removed([], [])
    async for one in _sweeps(client, what, dry_run=dry_run):
        removed.jobs.extend(one.jobs)
        removed.flows.extend(one.flows)
    return removed


async def _sweeps(client: Client, what: Filter, *, dry_run: bool) -> AsyncIterator[Removed]:
    database = client.database
    mark: UUID | None = UUID(int=0)

    async def verb(connection: Connection, after: UUID) -> Sweep:
        return await prune.sweep(connection, database.sql, after, what, dry_run=dry_run)

    while mark is not None:
        swept = await shielded(database.repeat(partial(verb, after=mark)))
        mark = swept.mark
        yield swept.removed


async def _each(client: Client, found: Sequence[Any], verb: Verb) -> list[UUID]:
    """Single jobs in batches, those of flows flow by flow. What cannot be done is left out.

    A batch is short, so that nobody waits for long behind what it holds.
    """
    done: list[UUID] = []
    sql = client.database.sql
    for root, rows in _parts(found, 1):
        ids = [row[0] for row in rows]
        for some in _steps(ids) if root is None else [ids]:
            with suppress(NotFound, NotPossible):
                done += await control.do(client, partial(_call, verb, sql, root, some))
    return done


def _steps(ids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


async def _call(
    verb: Verb, sql: Statements, root: UUID | None, ids: Sequence[UUID], connection: Connection, settled: Settled
) -> list[UUID]:
    return await verb(connection, sql, root, ids, settled)


def _parts(rows: Iterable[Any], column: int) -> list[tuple[Any, Sequence[Any]]]:
    """The rows that have the same in a column, together."""
    key = itemgetter(column)
    ordered = sorted(rows, key=lambda row: str(key(row) or ""))
    return [(value, list(part)) for value, part in groupby(ordered, key)]
