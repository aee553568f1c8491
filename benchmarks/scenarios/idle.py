"""What a worker costs that has nothing to do."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import asyncpg

from benchmarks import servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FlowrunSide
from benchmarks.work import flat

CALM = 6.0
"""Seconds until the last wake of what came before has been answered."""
_SENT = """
    select sum(calls)::float8 as calls, sum(total_exec_time) as milliseconds
    from pg_stat_statements s join pg_database d on d.oid = s.dbid
    where d.datname = current_database() and s.query not like '%pg_stat_statements%'
"""


def contests(dsn: str, scale: float) -> list[Contest]:
    """A minute of flowrun alone; the floor neither beats nor polls."""
    seconds = max(0.5, 60.0 * scale)
    return [
        Contest(
            f"an idle worker, watched for {seconds:.0f} s",
            partial(idle, dsn, seconds),
            None,
            [
                Figure("statements", "a minute", "statements"),
                Figure("cpu", "% of a core", "Python", goal=Goal(0.2, of_flowrun=True)),
                Figure("server", "% of a core", "PostgreSQL, in statements"),
            ],
        )
    ]


async def idle(dsn: str, seconds: float) -> dict[str, float]:
    """With the usual settings. Some jobs are run before, so that it has seen work."""
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        async with side.opened(), side.worker(100):
            await side.dispatch(flat(100))
            await side.drained(flat(100))
            await asyncio.sleep(min(CALM, seconds))
            reader = await asyncpg.connect(database)
            await reader.execute("create extension if not exists pg_stat_statements")
            before, used = await reader.fetchrow(_SENT), time.process_time()
            await asyncio.sleep(seconds)
            used, after = time.process_time() - used, await reader.fetchrow(_SENT)
            reader.terminate()
    calls, milliseconds = ((after[name] or 0.0) - (before[name] or 0.0) for name in ("calls", "milliseconds"))
    return {
        "statements": calls * 60 / seconds,
        "cpu": used / seconds * 100,
        "server": milliseconds / 10 / seconds,
    }
