"""What a worker does when there is nothing to do, and how it takes up work from there."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from flowrun import Flowrun

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def statements(dsn: str, connection):
    """Counts statements by the worker's sessions, by text, from pg_stat_activity's query_start changes."""
    await connection.execute("create extension if not exists pg_stat_statements")
    await connection.execute("select pg_stat_statements_reset()")

    async def calls() -> dict[str, int]:
        rows = await connection.fetch(
            "select query, sum(calls)::int from pg_stat_statements s join pg_database d on d.oid = s.dbid"
            " where d.datname = current_database() and query not like '%pg_stat%' group by 1"
        )
        return {row[0]: row[1] for row in rows}

    return calls


async def test_an_idle_worker_sends_heartbeats_and_slow_polls_only(dsn: str, statements, until) -> None:
    app = Flowrun(dsn, lease=4.0, poll=1.0)

    @app.handler
    async def nothing() -> None: ...

    async with app.worker(concurrency=4):
        run = await nothing.dispatch()
        await run.result(timeout=10)
        # Until the last wake of the dispatch has been answered: no new claim within a poll and a half.
        await until(lambda: _quiet(statements))
        before = await statements()
        await asyncio.sleep(3.0)  # the measured window itself, not a hope
        after = await statements()
    sent = {query: after[query] - before.get(query, 0) for query in after if after[query] != before.get(query, 0)}
    beats = [n for query, n in sent.items() if "workers" in query and "expires_at = " in query]
    claims = [n for query, n in sent.items() if "skip locked" in query and "ready" in query]
    news = [n for query, n in sent.items() if "cancels asked" in query]  # what else a heartbeat asks
    # The rest of a poll: whether anything waits where limits count.
    lanes = [n for query, n in sent.items() if "chr(" in query and "skip locked" not in query]
    assert sum(beats) <= 4
    assert sum(claims) <= 4
    assert sum(lanes) <= 4
    assert sum(news) <= 4
    assert len(sent) == len(beats) + len(news) + len(claims) + len(lanes), sent


async def _quiet(statements) -> bool:
    before = await statements()
    await asyncio.sleep(0.3)
    after = await statements()
    return sum(after.values()) - sum(before.values()) <= 1


async def test_an_idle_worker_in_another_process_starts_a_job_at_once(app: Flowrun, bench, until) -> None:
    """Median pick-up far below the poll interval: it was the notification that woke it. The bound is generous."""
    await bench.start()
    took = []
    async with app:
        for number in range(15):
            await until(lambda number=number: len(bench.lines("end")) == number)
            sent = time.monotonic_ns()
            await app.job("step").dispatch()
            await until(lambda number=number: len(bench.lines("start")) == number + 1)
            took.append((bench.lines("start")[-1].at - sent) / 1e6)
    assert statistics.median(took) < 100, took


async def test_a_result_arrives_by_notification_not_by_polling(app: Flowrun, bench) -> None:
    await bench.start()
    async with app:
        took = []
        for _ in range(10):
            begin = time.monotonic()
            run = await app.job("step", {"seconds": 0.1}).dispatch()
            await run.result(timeout=10)
            took.append(time.monotonic() - begin)
    assert statistics.median(took) < 0.6, took
