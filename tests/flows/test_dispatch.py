"""Dispatching, waiting, finding again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun, FlowrunError, InvalidFlow, JobFailed, MigrationNeeded, NotFound
from flowrun.testing import databases


@pytest.fixture
def echo(app):
    @app.handler
    async def echo(n: int) -> int:
        return n

    return echo


async def test_many_come_back_in_their_order(app, echo) -> None:
    async with app.worker(concurrency=8):
        runs = await app.dispatch_many([echo.job(n=n) for n in range(300)])
        assert [await run.result(timeout=10) for run in runs] == list(range(300))


async def test_many_of_different_kinds_and_none(app, echo) -> None:
    async with app.worker(concurrency=2):
        assert await app.dispatch_many([]) == []
        first, second = await app.dispatch_many([echo.job(n=1).options(delay=0.05), app.job("echo", {"n": 2})])
        assert (await first.result(timeout=10), await second.result(timeout=10)) == (1, 2)


async def test_many_are_all_or_nothing(app, echo, connection) -> None:
    async with app:
        with pytest.raises(FlowrunError):
            await app.dispatch_many([echo.job(n=1), echo.job(n="x")])
        with pytest.raises(ConfigurationError, match="item 1 is a int"):
            await app.dispatch_many([echo.job(n=1), 5])
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 0


async def test_a_delay_is_kept(app, echo) -> None:
    async with app.worker(concurrency=1):
        run = await echo.job(n=1).options(delay=0.3).dispatch()
        assert (await run.status()).state == "scheduled"
        status = await run.wait(timeout=10)
    assert status.started_at - status.created_at >= timedelta(seconds=0.3)


async def test_a_moment_is_kept_and_one_that_is_over_is_now(app, echo) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=0.5)
    async with app.worker(concurrency=1):
        later = await echo.job(n=1).options(run_at=moment).dispatch()
        past = await echo.job(n=2).options(run_at=datetime(1970, 1, 1, tzinfo=UTC)).dispatch()
        assert await past.result(timeout=10) == 2
        assert (await later.wait(timeout=10)).started_at >= moment
        never = await echo.job(n=3).options(run_at=datetime(9999, 12, 31, tzinfo=UTC)).dispatch()
        assert (await never.status()).state == "scheduled"


async def test_in_a_flow_a_delay_counts_from_release(app, echo) -> None:
    flow = app.flow("f")
    first = flow.add(echo.job(n=1).options(delay=0.2), name="first")
    flow.add(echo.job(n=2).options(delay=0.2), after=first, name="second")
    flow.add(echo.job(n=3).options(delay=0.2), after=first.failed, name="never")
    flow.add(echo.job(n=4).options(run_at=datetime(1970, 1, 1, tzinfo=UTC)), after=first, name="past")
    async with app.worker(concurrency=1):
        nodes = (await (await flow.dispatch()).wait(timeout=10)).nodes
    assert nodes["first"].started_at - nodes["first"].created_at >= timedelta(seconds=0.2)
    assert nodes["second"].started_at - nodes["first"].finished_at >= timedelta(seconds=0.2)
    assert (nodes["never"].state, nodes["past"].state) == ("skipped", "succeeded")


async def test_lower_priority_numbers_run_first_then_older_ones(app) -> None:
    ran = []

    @app.handler
    async def note(n: int) -> None:
        ran.append(n)

    async with app:
        runs = await app.dispatch_many([note.job(n=n).options(priority=p) for n, p in enumerate([5, 9, 0, 5, 1, 9, 0])])
    async with app.worker(concurrency=1):
        for run in runs:
            await run.wait(timeout=10)
    assert ran == [2, 6, 4, 0, 3, 1, 5]


async def test_only_the_queues_that_are_asked_for(app, echo) -> None:
    async with app.worker(concurrency=2, queues=["mine"]):
        other = await echo.job(n=1).options(queue="other").dispatch()
        assert await (await echo.job(n=2).options(queue="mine").dispatch()).result(timeout=10) == 2
        assert (await other.status()).state == "ready"


async def test_a_timeout_of_waiting_stops_nothing(app) -> None:
    release = asyncio.Event()

    @app.handler
    async def slow() -> str:
        await release.wait()
        return "done"

    async with app.worker(concurrency=2):
        run, flow_run = await slow.dispatch(), await app.chain(slow.job()).dispatch()
        for waiting in (run.result, run.wait, flow_run.result, flow_run.wait):
            with pytest.raises(TimeoutError, match="it goes on"):
                await waiting(timeout=0.05)
        with pytest.raises(TimeoutError):
            await run.result(timeout=0)
        release.set()
        assert await run.result(timeout=10) == "done"
        assert await flow_run.result(timeout=10) == "done"


async def test_many_wait_for_one(app, echo) -> None:
    async with app.worker(concurrency=1):
        run = await echo.job(n=7).options(delay=0.1).dispatch()
        again = await app.get_job(run.id)
        assert await asyncio.gather(run.result(10), again.result(10), run.result(10)) == [7, 7, 7]
        assert await run.result() == 7  # long after


async def test_found_again_by_id(app, echo) -> None:
    flow = app.flow("f")
    flow.add(echo.job(n=5), name="only")
    async with app.worker(concurrency=1):
        job, run = await echo.dispatch(n=3), await flow.dispatch()
        for id in (job.id, str(job.id)):
            found = await app.get_job(id)
            assert (found.id, found.type, await found.result(timeout=10)) == (job.id, "echo", 3)
        for id in (run.id, str(run.id), run.id.hex):
            again = await app.get_flow(id)
            assert (again.id, again.name) == (run.id, "f")
            assert await again.result(timeout=10) == await again["only"].result(timeout=10) == 5


async def test_what_is_not_there(app, echo) -> None:
    flow = app.flow("f")
    flow.add(echo.job(n=5), name="only")
    async with app:
        run = await flow.dispatch()
        nobody = uuid4()
        with pytest.raises(NotFound, match=f"no job {nobody} is stored"):
            await app.get_job(nobody)
        with pytest.raises(NotFound, match=f"no flow {nobody} is stored"):
            await app.get_flow(nobody)
        with pytest.raises(NotFound):
            await app.get_flow(run["only"].id)
        with pytest.raises(NotFound, match="flow 'f' has no node 'other'; it has only"):
            run["other"]
        with pytest.raises(NotFound, match="flow 'f' has no node 'other'; it has only"):
            (await run.status())["other"]
        for wrong in ("5", "", 5, None, b"x", "5" * 1_000_000):
            for verb in (app.get_job, app.get_flow, app.failed.get, app.failed.retry, app.failed.discard):
                given = [wrong] if verb == app.failed.discard else wrong
                with pytest.raises(ConfigurationError, match="an id is a UUID; got ['\"]") as error:
                    await verb(given)
                assert len(str(error.value)) < 200
            if wrong is not None:
                with pytest.raises(ConfigurationError, match="an id is a UUID"):
                    await app.failed.list(flow=wrong)


async def test_two_apps_work_on_one_database(dsn, until) -> None:
    apps = [Flowrun(dsn), Flowrun(dsn)]
    ran: list[list[int]] = [[], []]
    for number, app in enumerate(apps):

        @app.handler("note")
        async def note(n: int, number: int = number) -> int:
            ran[number].append(n)
            await asyncio.sleep(0.001)
            return n

    def flow(app: Flowrun, base: int):
        flow = app.flow("f", output="last")
        for chain in range(10):
            nodes = flow.chain([app.job("note", {"n": base + 10 * chain + k}) for k in range(10)])
            flow.on_finish(app.job("note", {"n": base + 100 + chain}))
            assert nodes
        flow.add(app.job("note", {"n": base + 110}), name="last")
        return flow

    async with apps[0].worker(concurrency=3), apps[1].worker(concurrency=3):
        runs = [await flow(apps[n % 2], 1000 * n).dispatch() for n in range(6)]
        for run in runs:
            assert (await run.wait(timeout=20)).state == "succeeded"

        async def all_ran() -> bool:
            return len(ran[0]) + len(ran[1]) >= 6 * 111

        await until(all_ran)
    both = ran[0] + ran[1]
    assert len(both) == len(set(both)) == 6 * 111
    assert ran[0]
    assert ran[1]


async def test_a_waiting_program_without_a_worker_hears_the_end(dsn, app, echo) -> None:
    client = Flowrun(dsn)
    async with client, app.worker(concurrency=1):
        assert await (await client.job("echo", {"n": 4}).dispatch()).result(timeout=10) == 4


async def test_nothing_is_connected_before_it_is_entered(app, echo) -> None:
    with pytest.raises(FlowrunError):
        await echo.dispatch(n=1)
    async with app:
        await echo.dispatch(n=1)
        async with app:  # again, inside
            await echo.dispatch(n=1)
        await echo.dispatch(n=1)
    with pytest.raises(FlowrunError):
        await echo.dispatch(n=1)


async def test_opened_again_after_closing(app, echo) -> None:
    for n in range(3):
        async with app.worker(concurrency=1):
            assert await (await echo.dispatch(n=n)).result(timeout=10) == n


async def test_work_of_before_the_worker_is_found(app, echo) -> None:
    async with app:
        run = await echo.dispatch(n=1)
        flow_run = await app.chain(echo.job(n=2), echo.job(n=3)).dispatch()
        assert (await run.status()).state == "ready"
        assert (await flow_run.status()).state == "running"
    async with app.worker(concurrency=1):
        assert await run.result(timeout=10) == 1
        assert await flow_run.result(timeout=10) == 3


async def test_a_database_without_tables(flowrun_postgres_server) -> None:
    server, _ = flowrun_postgres_server
    dsn = await databases.create(server, "template1")
    try:
        app = Flowrun(dsn)
        with pytest.raises(MigrationNeeded, match="flowrun migrate"):
            async with app.worker():
                pass
        async with app:
            with pytest.raises(MigrationNeeded):
                await app.job("x").dispatch()
        assert len(await app.migrate()) >= 1
        assert await app.migrate() == []
        async with app:
            await app.job("x").dispatch()
    finally:
        await databases.drop(server, dsn)


async def test_a_flow_written_once_and_dispatched_twice(app, echo) -> None:
    flow = app.chain(echo.job(n=1), echo.job(n=2))
    async with app.worker(concurrency=2):
        first, second = await flow.dispatch(), await flow.dispatch()
        assert first.id != second.id
        assert await first.result(timeout=10) == await second.result(timeout=10) == 2


async def test_what_belongs_to_no_app(app) -> None:
    from flowrun import Flow, JobSpec

    with pytest.raises(ConfigurationError, match="belongs to no app"):
        await JobSpec("a").dispatch()
    with pytest.raises(ConfigurationError, match="belongs to no app"):
        await Flow("f").dispatch()


async def test_the_views_can_be_queried(app, echo, connection: asyncpg.Connection) -> None:
    flow = app.flow("f", tags=["blue"])
    flow.add(echo.job(n=5), name="only")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        await run.wait(timeout=10)
    row = await connection.fetchrow(
        "select type, state, attempt, finished_at from flowrun.job_status where flow_id = $1", run.id
    )
    assert (row["type"], row["state"], row["attempt"]) == ("echo", "succeeded", 1)
    row = await connection.fetchrow("select * from flowrun.flow_status where id = $1", run.id)
    assert (row["name"], row["tags"], row["state"], row["jobs"]) == ("f", ["blue"], "succeeded", 1)


async def test_an_unknown_handler_fails_nothing_in_a_flow_of_others(app, echo) -> None:
    """A node of a type that no worker has just waits; the others go on."""
    flow = app.flow("f")
    flow.add(app.job("unknown"), name="waits")
    flow.add(echo.job(n=1), name="runs")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        assert await run["runs"].result(timeout=10) == 1
        status = await run.status()
    assert (status.state, status["waits"].state) == ("running", "ready")


async def test_inner_flows_are_refused_alone(app, echo) -> None:
    outer, inner = app.flow("outer"), app.flow("inner")
    outer.add(inner)
    async with app:
        with pytest.raises(InvalidFlow, match="dispatch that one"):
            await inner.dispatch()


async def test_failures_of_a_dispatch_by_name_are_named(app) -> None:
    @app.handler(attempts=1)
    async def bad() -> None:
        raise KeyError("missing")

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="KeyError: 'missing'"):
            await (await app.job("bad").dispatch()).result(timeout=10)
