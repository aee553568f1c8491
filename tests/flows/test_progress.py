"""What a job's status says while it runs."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from flowrun import Job


@pytest.fixture
def paced(app):
    """A handler that reports as it is told, and goes on when it is let."""
    said, go = asyncio.Queue(), asyncio.Queue()

    @app.handler
    async def paced(job: Job, steps: list[tuple[float, str | None]]) -> None:
        for fraction, message in steps:
            await job.progress(fraction, message)
            said.put_nowait(None)
            await go.get()

    return paced, said, go


async def test_the_last_word_counts_and_stays(app, paced) -> None:
    handler, said, go = paced
    async with app.worker(concurrency=1):
        run = await handler.dispatch(steps=[(0.25, "a quarter"), (0.5, None), (1, "done")])
        seen = []
        for _ in range(3):
            await said.get()
            status = await run.status()
            seen.append((status.state, status.progress, status.progress_message))
            go.put_nowait(None)
        status = await run.wait(timeout=10)
    assert seen == [("running", 0.25, "a quarter"), ("running", 0.5, None), ("running", 1.0, "done")]
    assert (status.state, status.progress, status.progress_message) == ("succeeded", 1.0, "done")


async def test_in_a_flow_each_node_has_its_own(app, paced) -> None:
    handler, _, go = paced
    flow = app.flow("f")
    flow.add(handler.job(steps=[(0.75, "x")]), name="one")
    flow.add(handler.job(steps=[]), name="none")
    inner = app.flow("inner")
    inner.add(handler.job(steps=[(0, None)]), name="two")
    flow.add(inner)
    go.put_nowait(None)
    go.put_nowait(None)
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        nodes = (await run.wait(timeout=10)).nodes
        assert {name: (one.progress, one.progress_message) for name, one in nodes.items()} == {
            "one": (0.75, "x"), "none": (None, None), "inner/two": (0.0, None),
        }  # fmt: skip
        assert (await run["inner"].status()).progress is None


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan"), float("inf"), True, "0.5", None])
async def test_what_is_no_fraction_is_refused(fraction) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        await Job(id=uuid4(), type="x").progress(fraction)


async def test_a_message_is_text_of_bounded_length(app) -> None:
    @app.handler
    async def work(job: Job) -> None:
        with pytest.raises(ValueError, match="a text"):
            await job.progress(0.1, 5)  # type: ignore[arg-type]
        await job.progress(0.5, "nul \0 and \ud800 " + "x" * 5000)

    async with app.worker(concurrency=1):
        status = await (await work.dispatch()).wait(timeout=10)
    assert status.state == "succeeded"
    assert status.progress_message.startswith("nul \ufffd and ")
    assert 500 <= len(status.progress_message) < 550


async def test_who_dispatched_and_who_asked_it_to_stop(app, connection) -> None:
    """Nothing writes these yet but what is to come; the columns are agreed."""
    seen: list[Job] = []

    @app.handler
    async def work(job: Job) -> None:
        seen.append(job)

    by = uuid4()
    async with app:
        run = await work.dispatch()
        other = await work.dispatch()
        flow = app.flow("f")
        flow.add(work.job())
        flow_run = await flow.dispatch()
        await connection.execute(
            "update flowrun.jobs set options = jsonb_build_object('dispatched_by', $2::text) where id = $1",
            run.id,
            str(by),
        )
        await connection.execute("update flowrun.flows set dispatched_by = $2 where id = $1", flow_run.id, by)
        await connection.execute("insert into flowrun.cancels (id) values ($1)", run.id)
        status = await run.status()
        assert (status.dispatched_by, status.cancel_requested) == (by, True)
        status = await other.status()
        assert (status.dispatched_by, status.cancel_requested) == (None, False)
        status = await flow_run.status()
        assert (status.dispatched_by, status.detail, status["work"].dispatched_by) == (by, None, None)
    async with app.worker(concurrency=1):
        await run.wait(timeout=10)
        await other.wait(timeout=10)
        await flow_run.wait(timeout=10)
    assert {job.id: job.dispatched_by for job in seen} == {
        run.id: by, other.id: None, flow_run["work"].id: None,
    }  # fmt: skip
    async with app:
        assert (await run.status()).cancel_requested is False
        await connection.execute(
            """update flowrun.finished set error = '{"message": "m", "detail": "d"}' where id = $1""", flow_run.id
        )
        assert (await flow_run.status()).detail == "d"
