"""A worker dies between a handler's return and the commit's answer: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.crash import STATUS
from tests.model import invariants

POINTS = [
    "settle.before:2", "settle.answered:1", "settle.begun:1",
    "settle.left:1", "settle.left:3", "settle.written:1", "settle.written:2", "settle.sent:1", "settle.sent:2",
    "settle.before commit:1", "settle.committed:1", "settle.committed:2",
    "transaction.before end:1", "transaction.ended:1",
]  # fmt: skip


async def start(dsn: str, crash_at: str = "") -> asyncio.subprocess.Process:
    environment = {**os.environ, "PROGRAM_DSN": dsn, "FLOWRUN_CRASH_AT": crash_at}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.worker.crashing", env=environment)


def written(app: Flowrun):
    flow = app.flow("f")
    a = flow.add(app.job("work"), name="a")
    spawns = flow.add(app.job("spawns"), after=a, name="spawns")
    dispatches = flow.add(app.job("dispatches"), after=a, name="dispatches")
    completes = flow.add(app.job("completes"), after=a, name="completes")
    join = flow.add(app.job("work"), after=[spawns, dispatches, completes], name="join")
    flow.add(app.job("work"), after=join, name="tail")
    flow.on_finish(app.job("work"), name="finish")
    return flow


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at(app: Flowrun, dsn: str, connection: asyncpg.Connection, point: str) -> None:
    await connection.execute("create table ledger (job uuid not null)")
    async with app:
        run = await written(app).dispatch()
        victim = await start(dsn, point)
        try:
            await asyncio.wait_for(victim.wait(), 20)
            assert victim.returncode == STATUS
            await start_and_finish(dsn, run)
        finally:
            if victim.returncode is None:
                victim.kill()
                await victim.wait()
        status = await run.status()
    assert status.state == "succeeded", status
    names = ["a", "spawns", "dispatches", "completes", "spawned", "spawned after", "join", "tail", "finish"]
    assert sorted(status.nodes) == sorted(names)
    assert {job.state for job in status.nodes.values()} == {"succeeded"}
    assert await connection.fetchval("select count(*) from ledger") == 1
    for tag in ("tail", "within"):
        jobs = await connection.fetchval("select count(*) from flowrun.jobs where options -> 'tags' ? $1", tag)
        assert jobs == 1, f"{tag} was dispatched {jobs} times"
    await invariants.check(connection)


async def start_and_finish(dsn: str, run) -> None:
    """Another worker does the rest, the jobs outside the flow included."""
    other = await start(dsn)
    try:
        await run.wait(timeout=30)
        await run["finish"].wait(timeout=30)
        connection = await asyncpg.connect(dsn)
        try:
            while await connection.fetchval(
                "select count(*) from flowrun.jobs j where not exists (select from flowrun.finished f where f.id = j.id)"
            ) or await connection.fetchval("select count(*) from flowrun.leases"):
                await asyncio.sleep(0.02)
        finally:
            await connection.close()
    finally:
        other.kill()
        await other.wait()
