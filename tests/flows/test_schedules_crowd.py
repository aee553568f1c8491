"""One tick, one dispatch: eight workers in two processes, one of which dies in the middle of a tick."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from flowrun.crash import STATUS
from tests.flows.schedule_crowd import make_app
from tests.programs import started, working

PROGRAM = "tests.flows.schedule_crowd"
EVERY = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.125, "flow": 0.25, "queue": 0.25}


@pytest.mark.timeout(120)
async def test_each_tick_is_dispatched_once(dsn, connection, until) -> None:
    app = make_app(dsn)
    dies = await started(PROGRAM, dsn, FLOWRUN_CRASH_AT="tick.written:3")
    async with app, working(dies, await started(PROGRAM, dsn)):
        start = await connection.fetchval("select clock_timestamp()") + timedelta(seconds=0.2)
        for key, every in EVERY.items():
            spec = app.job("tick", {"seconds": 0.03 if key == "queue" else 0.0})
            if key == "flow":
                spec = app.chain(app.job("tick"), app.job("tick"))
            overlap = "queue" if key == "queue" else "allow"
            await app.schedules.put(key, every=every, spec=spec, start=start, catchup="all", overlap=overlap)
        assert await asyncio.wait_for(dies.wait(), 60) == STATUS

        async def many() -> bool:
            return await connection.fetchval("select min(dispatched) >= 10 from flowrun.schedules")

        await until(many, 60)
        for key in EVERY:
            await app.schedules.pause(key)

        async def over() -> bool:
            return not await connection.fetchval(
                "select exists (select from flowrun.jobs where not exists"
                " (select from flowrun.finished where finished.id = jobs.id and outcome = 1))"
            )

        await until(over, 60)
    schedules = await connection.fetch("select key, dispatched, skipped, last_at from flowrun.schedules")
    ticks = await connection.fetch(
        "select options ->> 'schedule' as key, (options ->> 'scheduled_for')::timestamptz as tick, count(*) as jobs"
        " from flowrun.jobs where kind = 0 group by 1, 2"
    )
    found = {key: sorted(row["tick"] for row in ticks if row["key"] == key) for key in EVERY}
    for row in schedules:
        key, step = row["key"], timedelta(seconds=EVERY[row["key"]])
        first, last = found[key][0], found[key][-1]
        assert (first - start) % step == timedelta()
        assert last == row["last_at"]
        assert found[key] == [first + number * step for number in range((last - first) // step + 1)]
        assert (row["dispatched"], row["skipped"]) == (len(found[key]), 0)
    assert {row["jobs"] for row in ticks if row["key"] != "flow"} == {1}
    assert {row["jobs"] for row in ticks if row["key"] == "flow"} == {2}
    # In the queue none began before the one before it had ended.
    overlapping = await connection.fetchval(
        "select count(*) from (select started_at, lag(finished_at) over (order by started_at) as before"
        " from flowrun.finished f join flowrun.jobs j on j.id = f.id where j.options ->> 'schedule' = 'queue') t"
        " where started_at < before"
    )
    assert overlapping == 0
    assert await connection.fetchval("select count(*) from flowrun.keys where scope like 'schedule:%'") == len(ticks)
