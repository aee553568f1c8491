"""What dispatches or spawns very many jobs is settled beside the others of its worker, which do not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from flowrun import Flowrun, Job, JobFailed, crash
from flowrun.crash import STATUS
from tests.model import invariants

pytestmark = pytest.mark.timeout(120)

MANY = 20_000
KEY = 4711
SLOW = """
create function public.wait_for_leave() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(4711);
    return null;
end $$;
create trigger held_up after insert on flowrun.jobs
for each row when (new.type = 'leaf' and new.args ->> 'number' = '0') execute function public.wait_for_leave();
"""
WAITS = """
select count(*) from pg_locks join pg_database on oid = database
where locktype = 'advisory' and not granted and datname = current_database()
"""


@pytest.fixture
async def held(connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Whoever writes the first leaf waits until this connection lets go."""
    await connection.execute(SLOW)
    await connection.execute(f"select pg_advisory_lock({KEY})")
    yield connection
    await connection.execute("select pg_advisory_unlock_all()")


def handlers(app: Flowrun, count: int = MANY) -> tuple[list[int], asyncio.Event]:
    """Types of jobs; returns the attempts of ``many``, and what lets each ``mate`` end."""
    attempts: list[int] = []
    go = asyncio.Event()

    @app.handler(queue="leaves")
    async def leaf(number: int) -> None: ...

    @app.handler
    async def many(job: Job) -> str:
        attempts.append(job.attempt)
        await app.dispatch_many([leaf.job(number=number) for number in range(count)])
        return "done"

    @app.handler
    async def spawns(job: Job) -> None:
        for number in range(count):
            job.spawn(leaf.job(number=number).options(queue="leaves"))

    @app.handler
    async def small(number: int) -> int:
        return number

    @app.handler
    async def small_outbox(number: int) -> int:
        await leaf.dispatch(number + 1_000_000)
        return number

    @app.handler
    async def mate(number: int) -> int:
        await go.wait()
        return number

    @app.handler
    async def mate_outbox(number: int) -> int:
        await go.wait()
        await leaf.dispatch(number + 1_000_000)
        return number

    return attempts, go


async def leaves(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval(
        "select count(*) from flowrun.jobs where type = 'leaf' and (args ->> 'number')::integer < 1000000"
    )
    return count


async def expiry(connection: asyncpg.Connection) -> Any:
    return await connection.fetchval("select max(expires_at) from flowrun.workers")


@contextlib.asynccontextmanager
async def dispatched_together(app: Flowrun, kinds: list[str], **worker: Any) -> AsyncIterator[list[Any]]:
    """Jobs that one claim takes into one lease, since they are ready before the worker is."""
    runs = [await app.job(kind, {} if kind == "many" else {"number": at}).dispatch() for at, kind in enumerate(kinds)]
    async with app.worker(queues=["default"], **worker):
        yield runs


async def test_others_of_its_lease_and_of_its_worker_are_settled_meanwhile(
    dsn: str, held: asyncpg.Connection, until
) -> None:
    app = Flowrun(dsn, lease=2.0)
    _, go = handlers(app)
    async with app, dispatched_together(app, ["many", *["mate", "mate_outbox"] * 3], concurrency=7) as runs:
        await until(lambda: held.fetchval(WAITS))
        before = await expiry(held)
        go.set()
        for run in runs[1:]:
            await run.result(timeout=20)
        for number in range(20):
            assert await (await app.job("small", {"number": number}).dispatch()).result(timeout=20) == number
            await (await app.job("small_outbox", {"number": number}).dispatch()).result(timeout=20)
        await until(lambda: _later(held, before))
        assert await leaves(held) == 0
        assert (await runs[0].status()).state == "running"
        await held.execute("select pg_advisory_unlock_all()")
        assert await runs[0].result(timeout=60) == "done"
        assert await leaves(held) == MANY
    assert await held.fetchval("select count(*) from flowrun.leases") == 0
    await invariants.check(held, at_rest=False)


async def _later(connection: asyncpg.Connection, before: Any) -> bool:
    return bool(await expiry(connection) > before)


async def test_what_is_spawned_in_masses_too(app: Flowrun, held: asyncpg.Connection, until) -> None:
    handlers(app, 3000)
    async with app:
        flow = app.flow("grows")
        flow.add(app.job("spawns"), name="spawns")
        beside = flow.add(app.job("small", {"number": 1}), name="beside")
        flow.add(app.job("small", {"number": 2}), name="after", after=beside)
        run = await flow.dispatch()
        async with app.worker(queues=["default"], concurrency=4):
            await until(lambda: held.fetchval(WAITS))
            for number in range(5):
                assert await (await app.job("small", {"number": number}).dispatch()).result(timeout=20) == number
            assert await run["after"].result(timeout=20) == 2
            await held.execute("select pg_advisory_unlock_all()")
            await until(lambda: _count(held, 3000))
    assert await held.fetchval("select count(*) from flowrun.leases") == 0
    await invariants.check(held, at_rest=False)


async def _count(connection: asyncpg.Connection, count: int) -> bool:
    return await leaves(connection) == count


@pytest.mark.parametrize(
    "options", [{"limit": ("key", 3)}, {"queue": "narrow"}, {"fair_key": "fair", "limit": ("key", 3)}], ids=str
)
async def test_limits_go_on_and_are_free_afterwards(
    app: Flowrun, held: asyncpg.Connection, until, options: dict[str, Any]
) -> None:
    _, go = handlers(app, 2000)
    app.queue("narrow", concurrency=3)
    async with app:
        runs = await app.dispatch_many(
            [app.job("many", **options), *(app.job("mate", {"number": n}, **options) for n in range(2))]
        )
        async with app.worker(queues=["default", "narrow"], concurrency=5):
            await until(lambda: held.fetchval(WAITS))
            go.set()
            more = await app.dispatch_many([app.job("small", {"number": n}, **options) for n in range(20)])
            for run in [*runs[1:], *more]:
                await run.result(timeout=20)
            await held.execute("select pg_advisory_unlock_all()")
            assert await runs[0].result(timeout=20) == "done"
            more = await app.dispatch_many([app.job("small", {"number": n}, **options) for n in range(20)])
            for run in more:
                await run.result(timeout=20)
    assert await held.fetchval("select count(*) from flowrun.slots s join flowrun.leases l using (worker_id, n)") == 0


async def test_a_worker_that_stops_settles_it_first(app: Flowrun, held: asyncpg.Connection, until) -> None:
    attempts, go = handlers(app, 2000)
    async with app:
        async with dispatched_together(app, ["many", "mate"], concurrency=2) as runs:
            await until(lambda: held.fetchval(WAITS))
            go.set()
            stopping = asyncio.get_running_loop().call_later(
                0.5, lambda: asyncio.ensure_future(held.execute("select pg_advisory_unlock_all()"))
            )
        assert stopping.when() <= asyncio.get_running_loop().time()
        assert (await runs[0].status()).state == "succeeded"
    assert await leaves(held) == 2000
    assert attempts == [1]


async def test_an_answer_to_the_move_that_is_lost_costs_nothing(app: Flowrun, connection: asyncpg.Connection) -> None:
    attempts, go = handlers(app, 2000)
    crash.arm("settle.moved")
    try:
        async with app, dispatched_together(app, ["many", "mate", "mate"], concurrency=3) as runs:
            assert await runs[0].result(timeout=20) == "done"
            go.set()
            for run in runs[1:]:
                await run.result(timeout=20)
    finally:
        crash.disarm("settle.moved")
    assert await leaves(connection) == 2000
    assert attempts == [1]
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def start(dsn: str, crash_at: str = "") -> asyncio.subprocess.Process:
    environment = {**os.environ, "PROGRAM_DSN": dsn, "FLOWRUN_CRASH_AT": crash_at}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.worker.crashing", env=environment)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("point", ["settle.moved:1", "settle.left:1", "settle.sent:1", "settle.before commit:1"])
async def test_a_worker_that_dies_meanwhile_has_written_nothing(
    app: Flowrun, dsn: str, connection: asyncpg.Connection, point: str, once: bool
) -> None:
    kind = "dispatches_many_once" if once else "dispatches_many"
    async with app:
        runs = await app.dispatch_many([app.job(kind), *(app.job("lingers") for _ in range(2))])
        programs = [await start(dsn, point)]
        try:
            assert await asyncio.wait_for(programs[0].wait(), 20) == STATUS
            assert await leaves(connection) == 0
            own = await connection.fetchval("select jobs from flowrun.leases where jobs @> $1", [runs[0].id])
            assert own == [runs[0].id]
            programs.append(await start(dsn))
            if once:
                with pytest.raises(JobFailed, match="it is not run again"):
                    await runs[0].result(timeout=30)
            else:
                await runs[0].result(timeout=30)
            for run in runs[1:]:
                await run.result(timeout=30)
            assert (await runs[0].status()).attempt == (1 if once else 2)
        finally:
            for program in programs:
                if program.returncode is None:
                    program.kill()
                    await program.wait()
    assert await leaves(connection) == (0 if once else 1500)
    await invariants.check(connection, at_rest=False)
