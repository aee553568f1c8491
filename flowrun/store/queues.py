"""What is known of queues: limits, rates, pauses. Most queues have none of it and no row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


class QueueSetting(NamedTuple):
    """What is known of one queue."""

    name: str
    concurrency: int | None = None
    """Jobs of it that run at once, on all workers together."""
    rate: tuple[int, float] | None = None
    """Jobs that may start in any stretch of so many seconds."""
    paused: bool | None = False
    """None, where it is written: leave it as it is."""

    @property
    def limited(self) -> bool:
        """Whether claims from it need a look at its limits."""
        return self.concurrency is not None or self.rate is not None


class QueueRow(NamedTuple):
    """A queue as it stands."""

    setting: QueueSetting
    ready: int
    running: int
    """Those that its limit counts."""
    workers: int


async def put(
    connection: Connection, sql: Statements, settings: Iterable[QueueSetting], *, declared: bool = False
) -> bool:
    """Write what is known of some queues; whether anything was changed, which :func:`announce` has to follow.

    ``declared``: ``paused`` is how a queue begins, and changes none that is there.
    """
    changed: list[str] = []
    async with connection.transaction(isolation="read_committed"):
        for one in sorted(settings):
            jobs, seconds = one.rate or (None, None)
            row = (one.name, one.concurrency, jobs, seconds, one.paused, declared)
            changed += [name for (name,) in await connection.fetch(sql["put_queue"], *row)]
        if changed:
            await connection.execute(sql["count_change"], changed)
    return bool(changed)


async def pause(connection: Connection, sql: Statements, name: str, *, paused: bool) -> bool:
    """Pause or resume a queue; whether it was not so before. :func:`announce` has to follow."""
    async with connection.transaction(isolation="read_committed"):
        changed = bool(await connection.fetch(sql["pause_queue"], name, paused))
        if changed:
            await connection.execute(sql["count_change"], [name])
    return changed


class Hearing(NamedTuple):
    """Who has to hear of a change: workers, and the count of changes that each has to know then."""

    workers: list[UUID]
    changes: list[int]


async def announce(connection: Connection, sql: Statements, names: Sequence[str]) -> Hearing:
    """Have the workers look at changed queues; those who serve them. To be called after the commit of the change."""
    rows = await connection.fetch(sql["count_change"], names)
    return Hearing([row[0] for row in rows], [row[1] for row in rows])


async def hear(connection: Connection, sql: Statements, worker_id: UUID, changes: int) -> None:
    """A worker begins no job any more by what it knew of queues before so many changes."""
    await connection.execute(sql["hear"], worker_id, changes)


async def unheard(
    connection: Connection, sql: Statements, hearing: Hearing, *, of_type: bool = False
) -> list[tuple[str, bool]]:
    """Those that live and have not heard yet: their names, and whether they will say when they have."""
    name = "unheard_type" if of_type else "unheard"
    return [(worker, says) for worker, says in await connection.fetch(sql[name], *hearing)]


async def pause_type(connection: Connection, sql: Statements, type: str, *, paused: bool) -> bool:
    """Pause or resume a type of jobs; whether it was not so before. :func:`announce_type` has to follow."""
    async with connection.transaction(isolation="read_committed"):
        changed = bool(await connection.fetch(sql["pause_type"], type, paused))
        if changed:
            await connection.execute(sql["count_type_change"], [type])
    return changed


async def announce_type(connection: Connection, sql: Statements, type: str) -> Hearing:
    """Have the workers look at a type that was paused or resumed; those who have its handler. To be called after the
    commit of the change."""
    rows = await connection.fetch(sql["count_type_change"], [type])
    return Hearing([row[0] for row in rows], [row[1] for row in rows])


async def running_of_type(connection: Connection, sql: Statements, type: str) -> int:
    """How many jobs of a type workers have."""
    count: int = await connection.fetchval(sql["count_running_type"], type)
    return count


async def types(connection: Connection, sql: Statements) -> list[tuple[str, bool, int, int]]:
    """All types, by name: whether it is paused, its jobs that are ready, the workers that have its handler."""
    return [(name, paused, ready, workers) for name, paused, ready, workers in await connection.fetch(sql["types"])]


async def running(connection: Connection, sql: Statements, name: str) -> int:
    """How many jobs of a queue workers have."""
    count: int = await connection.fetchval(sql["count_running"], name)
    return count


class Known(NamedTuple):
    """What a worker claims by."""

    changes: int
    """That this is the state after."""
    queues: dict[str, QueueSetting]
    """What is known of queues, by name."""
    paused_types: frozenset[str]


async def settings(connection: Connection, sql: Statements, worker_id: UUID) -> Known:
    """What is known of queues and of types, and how many changes that is the state after."""
    rows = await connection.fetch(sql["queue_settings"], worker_id)
    if not rows:
        return Known(0, {}, frozenset())
    found = {row[1]: _setting(row[1:]) for row in rows if row[1] is not None}
    return Known(rows[0][0], found, frozenset(rows[0][6] or ()))


async def standing(connection: Connection, sql: Statements) -> list[QueueRow]:
    """All queues, by name."""
    return [QueueRow(_setting(row), row[5], row[6], row[7]) for row in await connection.fetch(sql["queues"])]


def _setting(row: Sequence[object]) -> QueueSetting:
    name, concurrency, jobs, seconds, paused = row[:5]
    rate = None if jobs is None or seconds is None else (jobs, seconds)
    return QueueSetting(name, concurrency, rate, paused)  # type: ignore[arg-type]
