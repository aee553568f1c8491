"""Workers that die: what kills them is found, what ran beside it succeeds, and what must not run twice does not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from flowrun import Flowrun, JobFailed

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def losing(bench):
    bench.module = "losing"
    return bench


@asynccontextmanager
async def kept(losing, concurrency: int, programs: int = 1) -> AsyncIterator[None]:
    """Worker processes that are replaced when they die."""
    keepers = [asyncio.create_task(losing.keep(concurrency)) for _ in range(programs)]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper


async def outcomes(connection) -> Counter[tuple[str, str]]:
    rows = await connection.fetch("select type, state from flowrun.job_status where type in ('poison', 'bystander')")
    return Counter((row["type"], row["state"]) for row in rows)


@pytest.mark.parametrize(
    ("poisons", "programs", "options"),
    [
        (1, 1, {}),
        (4, 2, {}),
        (2, 1, {"limit": ("bank", 4)}),
        (1, 2, {"fair_key": "ann"}),
    ],
    ids=["one", "four, two processes", "under a limit", "fair keys"],
)
async def test_what_kills_workers_is_found_and_bystanders_succeed(
    app: Flowrun, losing, connection, until, poisons: int, programs: int, options
) -> None:
    jobs = [app.job("bystander").options(**options) for _ in range(50)]
    for number in range(poisons):
        jobs.insert(3 + 9 * number, app.job("poison").options(**options))
    async with app:
        await app.dispatch_many(jobs)
    async with kept(losing, 8, programs):

        async def over() -> bool:
            found = await outcomes(connection)
            return sum(count for (_, state), count in found.items() if state in {"succeeded", "failed"}) == 50 + poisons

        await until(over, 120)
    assert await outcomes(connection) == {("poison", "failed"): poisons, ("bystander", "succeeded"): 50}
    kinds = await connection.fetch("select distinct error_type from flowrun.failed_jobs")
    assert [row[0] for row in kinds] == ["flowrun.WorkerLost"]


async def test_a_killer_in_a_sequence_and_in_a_flow_is_found(app: Flowrun, losing, connection, until) -> None:
    async with app:
        flow = app.flow("wide")
        first = flow.add(app.job("bystander", {"seconds": 0.0}), name="first")
        middle = [flow.add(app.job("bystander"), after=first, name=f"middle-{n}") for n in range(10)]
        flow.add(app.job("poison"), after=first, name="bad")
        flow.add(app.job("bystander"), after=middle, name="last")
        run = await flow.dispatch()
        line = [app.job("bystander", {"seconds": 0.01}).options(sequence="s") for _ in range(6)]
        line.insert(2, app.job("poison").options(sequence="s"))
        await app.dispatch_many(line)
        async with kept(losing, 8):
            status = await run.wait(timeout=100)

            async def over() -> bool:
                return (await outcomes(connection))["bystander", "succeeded"] == 18

            await until(over, 60)
    assert status.state == "failed"
    assert await outcomes(connection) == {("poison", "failed"): 2, ("bystander", "succeeded"): 18}


async def test_a_killer_that_takes_its_time_is_found(app: Flowrun, losing, connection, until) -> None:
    jobs = [app.job("bystander", {"seconds": 1.0}) for _ in range(12)]
    jobs.insert(1, app.job("poison", {"seconds": 0.7}))
    async with app:
        await app.dispatch_many(jobs)
    async with kept(losing, 8):

        async def over() -> bool:
            found = await outcomes(connection)
            return sum(count for (_, state), count in found.items() if state in {"succeeded", "failed"}) == 13

        await until(over, 120)
    assert await outcomes(connection) == {("poison", "failed"): 1, ("bystander", "succeeded"): 12}


async def test_a_job_that_lived_through_an_attempt_is_no_suspect_any_more(app: Flowrun, connection) -> None:
    """Losses are counted in a row: a job that is put off for ever is not given up for those of years."""
    runs: list[int] = []

    @app.handler(attempts=5, backoff=[0.0])
    async def again() -> None:
        runs.append(1)
        if len(runs) < 2:
            raise ValueError

    await app.migrate()
    async with app:
        run = await again.dispatch()
        await connection.execute("update flowrun.jobs set options = '{\"lost\": 4}'")
        async with app.worker():
            await run.result(timeout=20)
    assert await connection.fetchval("select options ->> 'survived' from flowrun.jobs") == "4"


# on_lost="fail"


@pytest.mark.parametrize("type", ["once", "once_in_thread"])
async def test_what_must_not_run_twice_fails_with_its_worker(app: Flowrun, losing, until, type: str) -> None:
    async with app:
        run = await app.job(type).dispatch()
        victim = await losing.start(2)
        await until(lambda: len(losing.lines("start")) == 1)
        victim.kill()
        await losing.start(2)
        with pytest.raises(
            JobFailed, match='while it ran the job; it is not run again \\(on_lost="fail"\\)'
        ) as failure:
            await run.result(timeout=20)
        assert failure.value.error_type == "flowrun.WorkerLost"
        [attempt] = await run.attempts()
        assert attempt.error_type == "flowrun.WorkerLost"
    assert len(losing.lines("start")) == 1


async def test_by_default_a_lost_attempt_is_numbered_and_not_charged(app: Flowrun, losing, until) -> None:
    async with app:
        run = await app.job("plain", {"seconds": 1.0}).dispatch()
        victim = await losing.start(2)
        await until(lambda: len(losing.lines("start")) == 1)
        victim.kill()
        await losing.start(2)
        await run.result(timeout=20)
        assert (await run.status()).attempt == 2
    assert [line.attempt for line in losing.lines("start")] == [1, 2]


async def test_what_must_not_run_twice_does_not_run_where_a_stopped_worker_wakes_up(
    app: Flowrun, losing, until
) -> None:
    """SIGSTOP past the lease: those that had begun have failed, those that had not run elsewhere, once."""
    async with app:
        zombie = await losing.start(2)
        runs = [await app.job("once", {"seconds": 0.5}).dispatch() for _ in range(6)]
        await until(lambda: len(losing.lines("start")) >= 1)
        zombie.process.send_signal(signal.SIGSTOP)
        await losing.start(2)
        await asyncio.gather(*(run.wait(timeout=40) for run in runs))
        zombie.process.send_signal(signal.SIGCONT)
        other = await app.job("bystander").dispatch()
        await other.result(timeout=20)
        await until(lambda: len(losing.lines("end")) >= 6)
    starts = Counter(line.job for line in losing.lines("start"))
    assert set(starts.values()) == {1}
    assert len(starts) == 7


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05])
async def test_jobs_that_must_not_run_twice_do_not_under_kills(
    app: Flowrun, losing, connection, until, seconds: float
) -> None:
    async with app:
        await app.dispatch_many([app.job("once", {"seconds": seconds}) for _ in range(300)])
        for _ in range(4):
            seen = len(losing.lines("start"))
            victim = await losing.start(8)
            await until(lambda seen=seen: len(losing.lines("start")) > seen + 20)
            victim.kill()
            await victim.process.wait()
        await losing.start(8)

        async def over() -> bool:
            return await connection.fetchval("select count(*) from flowrun.finished") == 300

        await until(over, 60)
    starts = Counter(line.job for line in losing.lines("start"))
    assert set(starts.values()) == {1}, "never twice"
    failed = {str(id) for (id,) in await connection.fetch("select id from flowrun.finished where outcome = 2")}
    assert len(failed - starts.keys()) <= 4 * 8, "none but those whose handlers were just about to be called"
    assert len(starts) >= 300 - 4 * 8


async def test_what_must_not_run_twice_fails_when_its_worker_does_not_wait(app: Flowrun, losing, until) -> None:
    """A worker that is told to stop, and whose grace is over: the handler was called, and is not called again."""
    async with app:
        begun = await app.job("once").dispatch()
        rest = [await app.job("once", {"seconds": 0.0}).dispatch() for _ in range(3)]
        first = await losing.start(1)
        await until(lambda: len(losing.lines("start")) == 1)
        assert await first.stop() == 0
        with pytest.raises(JobFailed, match="was stopped while it ran the job"):
            await begun.result(timeout=20)
        await losing.start(4)
        await asyncio.gather(*(run.result(timeout=20) for run in rest))
    starts = Counter(line.job for line in losing.lines("start"))
    assert set(starts.values()) == {1}


async def test_an_attempt_that_fails_by_itself_is_repeated_whatever_a_loss_means(app: Flowrun, losing) -> None:
    async with app:
        run = await app.job("raises").dispatch()
        await losing.start(2)
        await run.result(timeout=20)
    assert [line.attempt for line in losing.lines("start")] == [1, 2, 3]


async def test_a_process_that_is_killed_is_not_followed_by_another(app: Flowrun, losing, until, tmp_path) -> None:
    path = tmp_path / "pids"
    path.touch()
    async with app:
        run = await app.job("once_in_process", {"path": str(path)}).dispatch()
        await losing.start(2)
        await until(lambda: path.read_text().endswith("\n"), 30)
        os.kill(int(path.read_text()), signal.SIGKILL)
        with pytest.raises(JobFailed) as failure:
            await run.result(timeout=20)
    assert failure.value.error_type == "flowrun.errors.ProcessDied"
    assert len(path.read_text().split()) == 1
