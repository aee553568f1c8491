"""For tests: what is left to run, and time that is moved on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from flowrun.core.states import Outcome
from flowrun.store.pool import Database


async def runnable(database: Database, types: Sequence[str], queues: Sequence[str]) -> list[tuple[int, str, int]]:
    """What runs (0), is ready (1) or is due (2): state, type, how many."""
    return [(row[0], row[1], row[2]) for row in await database.fetch("runnable", types, queues)]


async def now(database: Database) -> datetime:
    """By the database's clock."""
    moment: datetime = (await database.fetch("server_now"))[0][0]
    return moment


async def ended_since(database: Database, moment: datetime) -> dict[Outcome, int]:
    """How many handlers' jobs ended, by outcome."""
    return {Outcome(row[0]): row[1] for row in await database.fetch("ended_since", moment)}


async def next_moment(database: Database, now: datetime | None) -> float | None:
    """Seconds until something happens by itself; None: nothing will. ``now`` is the moment it is for schedules."""
    seconds: float | None = (await database.fetch("next_moment", now))[0][0]
    return seconds


async def shift(database: Database, seconds: float) -> None:
    """All that is to happen at a moment happens so much sooner."""
    await database.fetch("shift", seconds)
