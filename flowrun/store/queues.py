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
    """Write what is known of some queues; whether anything was changed. Workers then look before they claim again.

    ``declared``: ``paused`` is how a queue begins, and changes none that is there.
    """
    changed = False
    async with connection.transaction(isolation="read_committed"):
        for one in sorted(settings):
            jobs, seconds = one.rate or (None, None)
            changed |= bool(
                await connection.fetch(sql["put_queue"], one.name, one.concurrency, jobs, seconds, one.paused, declared)
            )
        if changed:
            await connection.execute(sql["count_change"])
    return changed


async def pause(connection: Connection, sql: Statements, name: str, *, paused: bool) -> bool:
    """Pause or resume a queue; whether it was not so before."""
    async with connection.transaction(isolation="read_committed"):
        changed = bool(await connection.fetch(sql["pause_queue"], name, paused))
        if changed:
            await connection.execute(sql["count_change"])
    return changed


async def settings(connection: Connection, sql: Statements, worker_id: UUID) -> tuple[int, dict[str, QueueSetting]]:
    """What is known of queues, by name, and how many changes that is the state after."""
    rows = await connection.fetch(sql["queue_settings"], worker_id)
    return (rows[0][0] if rows else 0), {row[1]: _setting(row[1:]) for row in rows if row[1] is not None}


async def standing(connection: Connection, sql: Statements) -> list[QueueRow]:
    """All queues, by name."""
    return [QueueRow(_setting(row), row[5], row[6], row[7]) for row in await connection.fetch(sql["queues"])]


def _setting(row: Sequence[object]) -> QueueSetting:
    name, concurrency, jobs, seconds, paused = row[:5]
    rate = None if jobs is None or seconds is None else (jobs, seconds)
    return QueueSetting(name, concurrency, rate, paused)  # type: ignore[arg-type]
