"""Verbs on wide flows: in steps, each of which holds little."""

from __future__ import annotations

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
