"""Jobs that dispatch one another for ever, without delay, end; those that come back later go on."""

from __future__ import annotations

import pytest

from flowrun import ConfigurationError, Flowrun, Job


async def test_jobs_that_dispatch_themselves_for_ever_end(dsn: str, until) -> None:
    app = Flowrun(dsn, max_lineage=5)
    runs: list[int] = []

    @app.handler(attempts=4, backoff=[0.0])
    async def again(job: Job, many: bool) -> None:
        runs.append(job.attempt)
        spec = again.job(many=many)
        if many:
            await app.dispatch_many([spec])
        else:
            await spec.dispatch()

    await app.migrate()
    async with app.worker():
        for many in (False, True):
            runs.clear()
            await again.dispatch(many=many)
            [dead] = await _failed(app, until, 1 + many)
            assert dead.error_type == "flowrun.errors.LineageTooDeep"
            assert "which is more than max_lineage=5 allows" in dead.message
            assert runs == [1] * 6, "one was dispatched from outside, five from inside, and none is repeated"


async def _failed(app: Flowrun, until, jobs: int):
    async def there() -> bool:
        return len(await app.failed.list()) == jobs

    await until(there)
    return (await app.failed.list())[:1]


async def test_a_job_that_comes_back_later_goes_on(dsn: str, until) -> None:
    app = Flowrun(dsn, max_lineage=1)
    runs: list[int] = []

    @app.handler
    async def hourly() -> None:
        runs.append(1)
        await hourly.job().options(delay=3600.0).dispatch()

    await app.migrate()
    async with app.testing() as t:
        await hourly.dispatch()
        for _ in range(4):
            await t.advance(3600.0)
        assert len(runs) >= 4
        assert await app.failed.list() == []


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10"])
def test_limits_that_are_none(wrong) -> None:
    with pytest.raises(ConfigurationError, match="max_lineage must be a whole number, at least 1"):
        Flowrun(max_lineage=wrong)
