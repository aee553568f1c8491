"""Workers as real processes: shared work, kill -9, poison, and nothing run that should not."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from flowrun import Flowrun, JobFailed, NotFound

pytestmark = pytest.mark.timeout(120)


def order_flow(app: Flowrun, number: int, seconds: float = 0.0):
    flow = app.flow(f"order-{number}")
    pay = flow.add(app.job("step", {"seconds": seconds}), name="pay")
    mail = flow.add(app.job("after", {"value": pay.result}), after=pay, name="mail")
    invoice = flow.add(app.job("after", {"value": pay.result}), after=mail, name="invoice")
    stock = flow.add(app.job("step"), after=mail, name="stock")
    flow.add(app.job("after", {"value": stock.result}), after=[invoice.finished, stock], name="warehouse")
    return flow


PARENTS = {"mail": ["pay"], "invoice": ["mail"], "stock": ["mail"], "warehouse": ["invoice", "stock"]}


async def everything_is_settled(connection) -> bool:
    open_rows = await connection.fetchval(
        "select (select count(*) from flowrun.ready) + (select count(*) from flowrun.leases)"
        " + (select count(*) from flowrun.scheduled) + (select count(*) from flowrun.blocked)"
        " + (select count(*) from flowrun.flow_status where state = 'running')"
    )
    return open_rows == 0


def assert_ordered(lines, flow_of: dict[str, str]) -> None:
    """No start before the first end of each parent, by the machine's own clock."""
    ended: dict[tuple[str, str], int] = {}
    for line in lines:
        if line.event == "end":
            ended.setdefault((flow_of[line.job], line.name), line.at)
    for line in lines:
        if line.event == "start":
            for parent in PARENTS.get(line.name, ()):
                assert ended[flow_of[line.job], parent] < line.at, f"{line.name} began before {parent} ended"


async def test_a_thousand_order_flows_over_two_processes(app, bench, connection, until, count) -> None:
    async with app:
        for number in range(1000):
            await order_flow(app, number).dispatch()
    await asyncio.gather(bench.start(concurrency=4), bench.start(concurrency=4))
    await until(lambda: everything_is_settled(connection), 60)
    assert await count("flowrun.job_status where state = 'succeeded' and attempt = 1") == 5000
    assert await count("flowrun.flow_status where state = 'succeeded'") == 1000
    lines = bench.lines()
    flow_of = {
        str(row["id"]): str(row["flow_id"]) for row in await connection.fetch("select id, flow_id from flowrun.jobs")
    }
    starts = Counter(line.job for line in lines if line.event == "start")
    assert len(starts) == 5000
    assert set(starts.values()) == {1}
    assert_ordered(lines, flow_of)
    assert len({line.pid for line in lines}) == 2, "both processes worked"
    for program in bench.programs:
        assert await program.stop() == 0
    assert await count("flowrun.workers") == 0


async def test_kill_9_in_the_middle_loses_nothing(app, bench, connection, until, count) -> None:
    async with app:
        for number in range(200):
            await order_flow(app, number, seconds=0.02).dispatch()
    victims = [await bench.start(concurrency=8), await bench.start(concurrency=8)]
    await until(lambda: len(bench.lines("end")) > 100)
    victims[0].kill()
    await bench.start(concurrency=8)
    await until(lambda: len(bench.lines("end")) > 400)
    victims[1].kill()
    await until(lambda: everything_is_settled(connection), 60)
    assert await count("flowrun.job_status where state = 'succeeded'") == 1000
    assert await count("flowrun.finished") == 1200, "each job and each flow's end is settled once"
    dead = {victim.pid for victim in victims}
    lines = bench.lines()
    last_by_job: dict[str, list] = {}
    for line in lines:
        if line.event == "start":
            last_by_job.setdefault(line.job, []).append(line)
    for starts in last_by_job.values():
        for earlier in starts[:-1]:
            assert earlier.pid in dead, "a job ran again though its worker lived"
        assert [line.attempt for line in starts] == sorted({line.attempt for line in starts})
    flow_of = {
        str(row["id"]): str(row["flow_id"]) for row in await connection.fetch("select id, flow_id from flowrun.jobs")
    }
    assert_ordered(lines, flow_of)
    lost = await connection.fetch("select distinct error_type from flowrun.attempts")
    assert {row[0] for row in lost} <= {"flowrun.WorkerLost"}


async def test_a_job_that_kills_its_worker_is_given_up(app, bench, connection, until) -> None:
    async with app:
        run = await app.job("poison").dispatch()
        for _ in range(3):  # more than it has attempts: these are not its failures
            program = await bench.start()
            assert await asyncio.wait_for(program.process.wait(), 20) == -signal.SIGKILL
        await bench.start()
        with pytest.raises(JobFailed, match="worker died 3 times") as failure:
            await run.result(timeout=20)
        assert failure.value.error_type == "flowrun.WorkerLost"
        assert [attempt.error_type for attempt in await run.attempts()] == ["flowrun.WorkerLost"] * 3
    assert len(bench.lines("start")) == 3


async def test_a_stopped_worker_that_wakes_up_changes_nothing(app, bench, connection, until, count) -> None:
    """The zombie: SIGSTOP past the lease, rescue by another worker, SIGCONT, a late result."""
    async with app:
        run = await app.job("step", {"seconds": 0.5}).dispatch()
        zombie = await bench.start()
        await until(lambda: len(bench.lines("start")) == 1)
        zombie.process.send_signal(signal.SIGSTOP)
        await bench.start()
        await run.wait(timeout=30)
        before = await connection.fetchrow("select * from flowrun.finished where id = $1", run.id)
        zombie.process.send_signal(signal.SIGCONT)
        # It notices, begins a new life, and works again.
        await until(lambda: len(bench.lines("end")) == 2)
        other = await app.job("step").dispatch()
        await other.result(timeout=20)
        await until(lambda: _workers(connection, 2))
        after = await connection.fetchrow("select * from flowrun.finished where id = $1", run.id)
        assert before == after
        assert before["attempt"] == 2
        with pytest.raises(NotFound):
            await app.get_job("00000000-0000-7000-8000-000000000000")


async def _workers(connection, number: int) -> bool:
    return await connection.fetchval("select count(*) from flowrun.workers where expires_at > now()") == number
