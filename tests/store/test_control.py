"""Changing flows while their jobs run: what a settle under way may miss, it must not decide."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.core.attempt import Ending
from flowrun.core.compile import TYPES
from flowrun.core.growth import Parked
from flowrun.core.states import Outcome
from flowrun.store import control, stop, upkeep
from flowrun.store.bulk import By
from flowrun.store.finish import Settled
from flowrun.store.hold import Hold
from flowrun.store.statement import Statements
from tests.store.stage import Worker

SQL = Statements()


@pytest.fixture
async def second(dsn: str):
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def outcomes(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch(
        "select coalesce(name, type) as name, outcome from flowrun.finished join flowrun.jobs using (id)"
    )
    return {row["name"]: row["outcome"] for row in rows}


async def worker(connection: asyncpg.Connection) -> Worker:
    return await Worker(connection, SQL, queues=["default", "flowrun"], types=["step", *TYPES.values()]).register()


async def test_a_settle_that_waited_for_a_touched_lease_goes_the_slow_way(app: Flowrun, connection, second) -> None:
    """Its snapshot is older than the edge that was added meanwhile: the fast way would lose the new child."""
    async with app:
        flow = app.flow("f")
        flow.add(app.job("step"), name="parent")
        run = await flow.dispatch()
        mine = await worker(connection)
        jobs = await mine.claim()
        growth, _ = app.client.plan_addition(run.id, app.job("step"), "parent", "child")
        adding = second.transaction()
        await adding.start()
        await control.add(second, SQL, growth, By(), Settled())
        leases = mine.leaving(jobs)
        settling = asyncio.create_task(mine.settle(jobs, leases=leases))
        while not await is_waiting(app):
            assert not settling.done()
        await adding.commit()
        settled = await settling
        assert (settled.ids, settled.slow) == ([], [jobs[0].id])
        assert await outcomes(second) == {}
        ending = Ending(jobs[0].id, jobs[0].lease, jobs[0].attempt, Outcome.SUCCEEDED, result="1")
        assert (await mine.end([ending], leases)).queues == {"default"}
        (child,) = await mine.claim()
        assert child.name == "child"


async def is_waiting(app: Flowrun) -> bool:
    async with app.client.database.acquire() as connection:
        return bool(
            await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
        )


async def test_the_end_of_a_cancelled_flow_is_handed_back_undecided(app: Flowrun, connection) -> None:
    async with app:
        flow = app.flow("f")
        flow.add(app.job("step"), name="a")
        run = await flow.dispatch()
        mine = await worker(connection)
        (job,) = await mine.claim()
        error = '{"type":"x","message":"y"}'
        await mine.end([Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=error)])
        (end,) = await mine.claim()
        await control.cancel_job(connection, SQL, run.id, By(), Settled())
        await upkeep.hand_back(connection, SQL, worker_id=mine.id, leases=None)
        assert await outcomes(connection) == {"a": 2}
        assert [job.id for job in await mine.claim()] == [end.id]


async def test_what_a_worker_says_of_a_lease_that_the_job_has_left_does_not_count(app: Flowrun, connection) -> None:
    """The end of a flow is decided again, by the same worker, which settles both of what it found in one batch."""
    async with app:
        flow = app.flow("f")
        flow.add(app.job("step"), name="a")
        run = await flow.dispatch()
        mine = await worker(connection)
        await run["a"].cancel()
        (before,) = await mine.claim()
        await run.resolve("a")
        (after,) = await mine.claim()
        assert (before.id, before.lease) == (run.id, after.lease - 1)
        await mine.end(
            [
                Ending(before.id, before.lease, before.attempt, Outcome.CANCELLED),
                Ending(after.id, after.lease, after.attempt, Outcome.SUCCEEDED),
            ]
        )
        assert await outcomes(connection) == {"a": 1, "f": 1}


async def test_what_a_worker_says_late_of_a_job_that_runs_again_does_not_count(app: Flowrun, connection) -> None:
    """A gate whose time is over is in a lease when it is cancelled: once it waits again, it must not be there."""
    async with app:
        flow = app.flow("f")
        flow.wait_for("go", name="gate", timeout=60.0)
        run = await flow.dispatch()
        mine = await worker(connection)
        (gate,) = await mine.claim()
        parked = Ending(gate.id, gate.lease, gate.attempt, None, more=Parked("go", 60.0, None), flow_id=run.id)
        await mine.end([parked])
        await connection.execute("update flowrun.scheduled set run_at = now()")
        await upkeep.make_due(connection, SQL)
        (gate,) = await mine.claim()
        assert await run["gate"].cancel() == "cancelled"
        await run["gate"].retry()
        error = '{"type":"flowrun.GateTimeout","message":"no signal came in time"}'
        await mine.end([Ending(gate.id, gate.lease, gate.attempt, Outcome.FAILED, error=error)])
        assert await outcomes(connection) == {}


async def test_a_job_that_was_asked_to_stop_does_not_come_back(app: Flowrun, connection) -> None:
    async with app:
        mine = await worker(connection)
        for how in ("retry", "hand back", "rescue"):
            run = await app.job("step").dispatch()
            (job,) = await mine.claim()
            settled = Settled()
            assert await control.cancel_job(connection, SQL, run.id, By("ann", "no"), settled) == "requested"
            assert settled.interrupt == [run.id]
            if how == "retry":
                await mine.end([Ending(job.id, job.lease, job.attempt, None, attempts_used=1, delay=5.0)])
            elif how == "hand back":
                await upkeep.hand_back(connection, SQL, worker_id=mine.id, leases=None)
            else:
                await connection.execute("update flowrun.workers set expires_at = now() - interval '1 second'")
                assert await upkeep.rescue_one(connection, SQL) is not None
            status = await run.status()
            assert (status.state, status.error) == ("cancelled", "by ann: no"), how
            assert await connection.fetchval("select count(*) from flowrun.cancels") == 0


async def test_jobs_are_found_wherever_they_stand(app: Flowrun, connection) -> None:
    async with app:
        flow = app.flow("f")
        first = flow.add(app.job("step"), name="leased")
        flow.add(app.job("step"), after=first, name="blocked")
        flow.add(app.job("step", delay=60.0), name="scheduled")
        run = await flow.dispatch()
        mine = await worker(connection)
        await mine.claim()
        ready = await app.job("step").dispatch()
        done = await app.job("step").dispatch()
        await connection.execute("delete from flowrun.ready where id = $1", done.id)
        await connection.execute("insert into flowrun.finished (id, outcome, attempt) values ($1, 1, 1)", done.id)
        ids = {name: run[name].id for name in ("leased", "blocked", "scheduled")} | {"ready": ready.id, "done": done.id}
        async with connection.transaction():
            hold = Hold()
            held = await stop.find(connection, SQL, ids.values(), hold, withdraw=False)
            assert await connection.fetchval("select count(*) from flowrun.scheduled") == 1
            found = await stop.find(connection, SQL, ids.values(), hold)
        assert held == found
        assert set(found.withdrawn) == {ids["blocked"], ids["scheduled"], ids["ready"]}
        assert (found.running, found.ended) == ([ids["leased"]], [ids["done"]])
        for table in ("blocked", "scheduled", "ready"):
            assert not await connection.fetchval(
                f"select count(*) from flowrun.{table} where id = any($1)", list(ids.values())
            )


async def test_a_claim_and_a_cancel_at_the_same_moment(app: Flowrun, connection, second) -> None:
    """Whoever is first has the job, and the other knows."""
    async with app:
        mine = await worker(connection)
        for first in ("claim", "cancel"):
            run = await app.job("step").dispatch()
            begun = (connection if first == "claim" else second).transaction()
            await begun.start()
            if first == "claim":
                assert len(await mine.claim()) == 1
                cancelling = asyncio.create_task(control.cancel_job(second, SQL, run.id, By(), Settled()))
                while not await is_waiting(app):
                    assert not cancelling.done()
                await begun.commit()
                assert await cancelling == "requested"
                await upkeep.hand_back(connection, SQL, worker_id=mine.id, leases=None)
            else:
                assert await control.cancel_job(second, SQL, run.id, By(), Settled()) == "cancelled"
                assert await mine.claim() == []
                await begun.commit()
                assert await mine.claim() == []
            assert (await run.status()).state == "cancelled"


async def test_who_holds_all_counters_before_looks_once_at_what_follows(
    dsn: str, connection: asyncpg.Connection
) -> None:
    async with Flowrun(dsn) as app:
        flow = app.flow("wide")
        first = flow.add(app.job("step"), name="first")
        for number in range(3):
            flow.add(app.job("step"), name=f"n{number}", after=first)
        run = await flow.dispatch()
    looks: list[str] = []

    def look(query: asyncpg.connection.LoggedQuery) -> None:
        looks.extend([query.query] if query.query == SQL["reach"] else [])

    connection.add_query_logger(look)
    await control.cancel_job(connection, SQL, run.id, By(), Settled())
    connection.remove_query_logger(look)
    assert len(looks) == 2  # what is to be held, and what follows
    assert set((await outcomes(connection)).values()) == {Outcome.CANCELLED}
