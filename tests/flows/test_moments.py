"""Moments and stretches of time that an API takes: what PostgreSQL, Python or a loop cannot count on is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan
from typing import Any

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun, InvalidFlow

WRONG: list[Any] = [nan, inf, -1.0, 9e12, 1e300, "3", True]


@pytest.mark.parametrize("seconds", WRONG)
def test_stretches_of_time_in_a_flow(app: Flowrun, seconds: Any) -> None:
    with pytest.raises((InvalidFlow, ConfigurationError)):
        app.flow("f").sleep(seconds)
    with pytest.raises((InvalidFlow, ConfigurationError)):
        app.flow("f").wait_for("s", timeout=seconds)
    with pytest.raises((InvalidFlow, ConfigurationError)):
        app.flow("f", deadline=seconds)
    for option in ("delay", "timeout", "start_by", "key_ttl"):
        with pytest.raises(ConfigurationError):
            app.job("any").options(**{option: seconds})
    for option in ("debounce", "throttle"):
        with pytest.raises(ConfigurationError):
            app.job("any").options(**{option: ("key", seconds)})


@pytest.mark.parametrize("seconds", [nan, -1.0, "3", True])
async def test_how_long_to_wait(app: Flowrun, seconds: Any) -> None:
    async with app:
        run = await app.job("any").dispatch()
        with pytest.raises(ConfigurationError, match="timeout= must be a number of seconds"):
            await run.result(timeout=seconds)
        with pytest.raises(ConfigurationError):
            await app.prune(older_than=seconds)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
)
async def test_the_ends_of_time_are_stored_and_read(
    app: Flowrun, connection: asyncpg.Connection, moment: datetime
) -> None:
    app.handler("any")(lambda: None)
    async with app.worker(concurrency=1):
        run = await app.job("any", run_at=moment).dispatch()
        assert await connection.fetchval("select isfinite(run_at) from flowrun.jobs where id = $1", run.id)
        if moment.year < 2000:
            await run.result(timeout=20)
        else:
            assert (await run.status()).state == "scheduled"
        assert [job.id for job in await app.jobs.list(since=datetime.min.replace(tzinfo=UTC), until=moment)] in (
            [],
            [run.id],
        )
        # All else goes on.
        assert await (await app.job("any").dispatch()).result(timeout=20) is None


async def test_what_a_year_beyond_python_s_is_read_as(app: Flowrun, connection: asyncpg.Connection) -> None:
    async with app:
        run = await app.job("any", delay=60.0).dispatch()
        for stored, year in (("infinity", 9999), ("294276-12-31", 9999), ("-infinity", 1), ("4713-01-01 BC", 1)):
            await connection.execute(f"update flowrun.scheduled set run_at = '{stored}'")
            [job] = await app.jobs.list()
            assert job.run_at is not None
            assert job.run_at.year == year
            assert job.run_at.astimezone(timezone(timedelta(hours=14))).year == year
            assert job.run_at.astimezone(timezone(-timedelta(hours=14)))
            assert (await run.status()).run_at == job.run_at
