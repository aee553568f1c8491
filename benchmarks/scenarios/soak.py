"""Full load for minutes: is the last one as fast as the second, and does anything grow that should not?"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FlowrunSide

MINUTES = 10
BACKLOG = 20_000
"""Jobs that are kept ready."""
_SIZES = """
    select coalesce(sum(size) filter (where narrow), 0)::float8 / 1e6, sum(size)::float8 / 1e6
    from (
        select
            pg_total_relation_size(c.oid) as size,
            c.relname in ('ready', 'leases', 'blocked', 'scheduled', 'slots', 'workers') as narrow
        from pg_class c where c.relnamespace = 'flowrun'::regnamespace and c.relkind = 'r'
    ) tables
"""


def contests(dsn: str, scale: float) -> list[Contest]:
    """Ten minutes; a tenth of the time is looked at as if it were a minute."""
    seconds = max(2.0, 60.0 * MINUTES * scale)
    return [
        Contest(
            f"{seconds / 60:.3g} minutes at full load",
            partial(soak, dsn, seconds),
            None,
            [
                Figure("last", "jobs/s", "last minute"),
                Figure("kept", "", "last minute / second", goal=Goal(0.95, at_least=True, of_flowrun=True)),
                Figure("memory", "MB", "memory grown since the second minute"),
                Figure("narrow_half", "MB", "tables of what is under way, at half time"),
                Figure("narrow", "MB", "tables of what is under way, at the end"),
                Figure("half", "MB", "all tables, at half time"),
                Figure("all", "MB", "all tables, at the end"),
            ],
            once=True,
        )
    ]


@dataclass(slots=True)
class _Seen:
    """What was so at the end of a tenth."""

    done: int
    at: float
    memory: float
    narrow: float
    all: float


@dataclass(slots=True)
class _Count:
    done: int = 0
    tenths: list[_Seen] = field(default_factory=list)


async def soak(dsn: str, seconds: float) -> dict[str, float]:
    """A worker, and who keeps its queue full. What has ended is kept for a sixtieth of the time, so that it is pruned
    as fast as it comes from the second tenth on."""
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        side.app.retention(seconds / 60)
        count = _Count()

        @side.app.handler("count")
        async def work(order_id: int) -> dict[str, bool]:
            count.done += 1
            return {"ok": True}

        async with side.opened():
            reader = await asyncpg.connect(database)
            async with side.worker(100):
                feeding = asyncio.create_task(_feed(side, work, count))
                for _ in range(10):
                    await asyncio.sleep(seconds / 10)
                    sizes = await reader.fetchrow(_SIZES)
                    count.tenths.append(_Seen(count.done, time.monotonic(), _memory(), *sizes))
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            reader.terminate()
    return _told(count.tenths)


def _told(tenths: list[_Seen]) -> dict[str, float]:
    rates = [(b.done - a.done) / (b.at - a.at) for a, b in pairwise(tenths)]
    return {
        "last": rates[-1],
        "kept": rates[-1] / max(rates[0], 1.0),  # the first rate is that of the second tenth
        "memory": tenths[-1].memory - tenths[1].memory,
        "narrow_half": tenths[4].narrow,
        "narrow": tenths[-1].narrow,
        "half": tenths[4].all,
        "all": tenths[-1].all,
    }


async def _feed(side: FlowrunSide, work: Any, count: _Count) -> None:
    """Dispatch whenever the backlog is half gone."""
    given = 0
    while True:
        if given - count.done < BACKLOG:
            await side.app.dispatch_many([work.job(order_id=1) for _ in range(BACKLOG // 4)])
            given += BACKLOG // 4
        else:
            await asyncio.sleep(0.01)


def _memory() -> float:
    """Megabytes that this process has now; where that cannot be read, the most it had."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
