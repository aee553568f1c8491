"""Verbs on wide flows: in steps, each of which holds little."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flowrun import Flowrun

WIDE = 2600


async def test_half_of_a_wide_flow_is_cancelled_in_steps(app, connection) -> None:
    flow = app.flow("wide")
    first = flow.add(app.job("nobody_runs_it"), name="first")
    for number in range(WIDE):
        tags = ["odd"] if number % 2 else []
        flow.add(app.job("nobody_runs_it").options(tags=tags), after=first, name=f"n{number}")
    async with app:
        run = await flow.dispatch()
        assert len(await app.jobs.cancel(tag="odd")) == WIDE // 2
        cancelled = "select count(*), count(distinct xmin::text) from flowrun.finished where outcome = 3"
        jobs, transactions = await connection.fetchrow(cancelled)
        assert jobs == WIDE // 2
        assert transactions > 1
        assert await run.cancel() == "cancelled"


def layers(app: Flowrun, *, tagged: int, others: int):
    """A flow of ``others``, the first ``tagged`` of which lead to one tagged node each."""
    flow = app.flow("layers")
    for number in range(others):
        parent = flow.add(app.job("nobody_runs_it"), name=f"other{number}")
        if number < tagged:
            flow.add(app.job("nobody_runs_it").options(tags=["odd"]), after=parent, name=f"n{number}")
    return flow


async def edge_scans(dsn: str, connection: asyncpg.Connection, until, others: int) -> int:
    """How often edges are looked up while the tagged nodes of a flow are cancelled."""
    scans = "select idx_scan from pg_stat_user_tables where schemaname = 'flowrun' and relname = 'edges'"
    backends = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

    async def counted() -> int:
        await until(lambda: alone(), 30)  # a session reports what it did when it ends
        await connection.execute("select pg_stat_clear_snapshot()")
        return await connection.fetchval(scans)

    async def alone() -> bool:
        return await connection.fetchval(backends) == 0

    app = Flowrun(dsn)
    async with app:
        await layers(app, tagged=WIDE, others=others).dispatch()
    before = await counted()
    async with Flowrun(dsn) as app:
        assert len(await app.jobs.cancel(tag="odd", state="waiting")) == WIDE
    return await counted() - before


async def test_a_step_does_not_cost_more_in_a_wider_flow(dsn, connection, until) -> None:
    narrow = await edge_scans(dsn, connection, until, WIDE)
    wide = await edge_scans(dsn, connection, until, 2 * WIDE)
    # The edges of all that is in the flow are looked at once, not once in each of the three steps.
    assert wide - narrow <= WIDE * 1.2


async def test_what_leads_to_cancelled_nodes_of_any_step_keeps_the_flow_open(app, connection) -> None:
    async with app:
        run = await layers(app, tagged=WIDE, others=WIDE).dispatch()
        assert len(await app.jobs.cancel(tag="odd")) == WIDE
        waits = "select open from flowrun.blocked where id = $1"
        assert await connection.fetchval(waits, run.id) == WIDE
        assert (await run.status()).state == "running"
        assert await run.cancel() == "cancelled"


@pytest.mark.timeout(120)
async def test_others_go_on_while_a_wide_cancel_waits_in_the_middle(app, dsn, connection, until) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @app.handler("first")
    async def first() -> None:
        begun.set()
        await go.wait()

    @app.handler("quick")
    async def quick() -> int:
        return 7

    flow = app.flow("wide")
    start = flow.add(app.job("first"), name="first")
    for number in range(WIDE):
        flow.add(app.job("quick").options(tags=["odd"]), after=start, name=f"n{number}")
    other = app.flow("other")
    one = other.add(app.job("quick"), name="one")
    other.add(app.job("quick"), after=one, name="two")
    async with app, app.worker():
        run = await flow.dispatch()
        await begun.wait()
        nodes = "select id from flowrun.jobs where options -> 'tags' ? 'odd' order by id"
        middle = (await connection.fetch(nodes))[WIDE // 2][0]
        blocker = await asyncpg.connect(dsn)
        held = blocker.transaction()
        await held.start()
        await blocker.fetch("select from flowrun.blocked where id = $1 for update", middle)
        cancelling = asyncio.create_task(app.jobs.cancel(tag="odd"))
        waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

        async def stuck() -> bool:
            return await connection.fetchval(waits) > 0

        await until(stuck)
        ended = await connection.fetchval("select count(*) from flowrun.finished where outcome = 3")
        assert 0 < ended < WIDE
        assert (await (await other.dispatch()).wait(timeout=20)).state == "succeeded"
        assert not cancelling.done()
        assert await stuck()
        await held.rollback()
        await blocker.close()
        assert len(await cancelling) == WIDE
        go.set()
        await run.wait(timeout=20)
