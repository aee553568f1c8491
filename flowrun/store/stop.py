"""Taking jobs out of the way, wherever they stand: what waits is withdrawn, what runs is asked to stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.core.states import Kind
from flowrun.errors import DatabaseError
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

_OWN = (Kind.END, Kind.JOIN, Kind.VERDICT)
_TURNS = 100
"""Looks at where jobs stand. Each look misses only what moved during it, so two are many."""


@dataclass(slots=True)
class Stopped:
    """Where the jobs were found."""

    withdrawn: dict[UUID, int] = field(default_factory=dict)
    """Those that waited, with the attempts they had used; they stand nowhere now, or are held where they wait."""
    running: list[UUID] = field(default_factory=list)
    ended: list[UUID] = field(default_factory=list)


async def stop(
    connection: Connection,
    sql: Statements,
    ids: Sequence[UUID],
    *,
    reason: str | None,
    actor: str | None,
    harmless: bool = False,
) -> Stopped:
    """Withdraw jobs that wait; ask those that run to stop. An id of a flow stands for all that is in it.

    Nothing is asked of what has ended, nor of a flow in which nothing could be stopped. ``harmless`` is meant of
    ``ids``, not of what is in them: that says how they went. The end of each flow concerned waits for what goes on: for
    those that run, and those that are not stopped with it.
    """
    flows = await _expand(connection, sql, ids)
    inside = [row for rows in flows.values() for row in rows]
    targets = [id for id, kind, _, _, stays, _, ended in inside if _stops(kind, stays, ended)]
    stopped = await find(connection, sql, [*(id for id in ids if id not in flows), *targets])
    met = stopped.withdrawn.keys() | set(stopped.running)
    # A flow none of whose jobs is stopped is not cancelled: it is about to end as they did.
    named = {id for id in ids if (id in met if id not in flows else any(row[0] in met for row in flows[id]))}
    await _ask(connection, sql, named - stopped.withdrawn.keys(), reason, actor, harmless)
    await _ask(connection, sql, set(stopped.running) - named, reason, actor, False)
    others = {id for id, kind, _, _, _, after, ended in inside if ended is None and not after and kind != Kind.VERDICT}
    # Pinned first: one that is just ending has read its edges already, and would not count one more.
    going_on = await find(connection, sql, others - stopped.withdrawn.keys() - set(stopped.running), withdraw=False)
    await hold_open(connection, sql, [*going_on.withdrawn, *going_on.running, *stopped.running])
    return stopped


async def find(connection: Connection, sql: Statements, ids: Iterable[UUID], *, withdraw: bool = True) -> Stopped:
    """Take away the jobs that wait (or hold them where they are), and pin those that run.

    Until the transaction ends none of them moves on by a settle that does not see what the transaction wrote.
    """
    stopped = Stopped()
    left = set(ids)
    for _ in range(_TURNS):
        if not left:
            return stopped
        for id, attempt in await connection.fetch(sql["withdraw" if withdraw else "pin"], list(left)):
            stopped.withdrawn[id] = max(attempt, stopped.withdrawn.get(id, 0))
        left -= stopped.withdrawn.keys()
        if not left:
            return stopped
        leased = {row[1] for row in await connection.fetch(sql["touch_leases"], list(left))}
        open_still = {row[0] for row in await connection.fetch(sql["unfinished"], list(left))}
        stopped.ended += left - open_still
        stopped.running += leased & open_still
        left = open_still - leased
    raise DatabaseError(f"{len(left)} job(s) could not be held, {min(left)} among them: they keep moving; try again")


async def hold_open(connection: Connection, sql: Statements, ids: Iterable[UUID]) -> bool:
    """Let the ends of their flows wait for these jobs, whatever is decided about those behind them.

    Whether all these ends do: one that waits for nothing any more is left alone.
    """
    rows = await connection.fetch(sql["closings"], list(ids))
    if not rows:
        return True
    held = await connection.fetch(sql["hold_open"], [row[0] for row in rows], [row[1] for row in rows])
    return {row[1] for row in rows} <= {row[0] for row in held}


def words(reason: str | None, actor: str | None) -> str | None:
    """Why a job was cancelled, as it is kept; None if nobody said."""
    by = f"by {actor}" if actor else ""
    message = ": ".join(part for part in (by, reason) if part)
    return codec.dump({"message": message}) if message else None


async def _ask(
    connection: Connection, sql: Statements, ids: Iterable[UUID], reason: str | None, actor: str | None, harmless: bool
) -> None:
    asked = list(ids)
    if asked:
        await connection.execute(sql["request_cancel"], asked, reason, actor, harmless)


async def _expand(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> dict[UUID, list[Any]]:
    """By id of a flow among ``ids``: the rows of all that is in it."""
    flows = [row[0] for row in await connection.fetch(sql["ends"], ids)]
    return {flow: await connection.fetch(sql["inside_flow"], flow) for flow in flows}


def _stops(kind: int, stays: bool, outcome: int | None) -> bool:
    return outcome is None and not stays and kind not in _OWN
