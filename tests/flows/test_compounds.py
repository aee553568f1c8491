"""Kinds of nodes together: what random flows of all kinds have brought to light, each in its smallest form."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import Job, any_of


@pytest.fixture
def spawner(app):
    """Spawns one step, which fails or not; its result says 1."""

    @app.handler
    async def spawner(job: Job, fail: bool) -> dict[str, int]:
        job.spawn(app.job("step", {"name": "spawned", "fail": fail}), name="spawned")
        return {"n": 1}

    return spawner


@pytest.fixture
def listing(app):
    @app.handler
    async def listing(seconds: float = 0.0, fail: bool = False) -> list[int]:
        await asyncio.sleep(seconds)
        if fail:
            raise ValueError("as asked")
        return [1, 2]

    @app.handler(attempts=1)
    async def item(number: int) -> int:
        return number

    listing.item = item
    return listing


async def test_a_job_is_undone_although_what_it_spawned_failed(app, ran, step, spawner) -> None:
    flow = app.flow("f")
    flow.add(spawner.job(fail=True), compensate=step("undo"))
    async with app, app.worker(concurrency=2):
        status = await (await flow.dispatch()).wait(timeout=10)
    assert (status.state, status.detail) == ("failed", "compensated")
    assert ran == ["spawned", "undo"]


async def test_undoing_keeps_its_order_across_a_node_that_failed(app, ran, step) -> None:
    @app.handler
    async def slow_undo() -> None:
        await asyncio.sleep(0.1)
        ran.append("undo c")

    flow = app.flow("f")
    a = flow.add(step("a"), compensate=step("undo a"))
    b = flow.add(step("b", fail=True), after=a, compensate=step("undo b"))
    c = flow.add(step("c"), after=b.finished, compensate=slow_undo.job())
    flow.add(step("d"), after=c, compensate=step("undo d"))
    async with app, app.worker(concurrency=4):
        assert (await (await flow.dispatch()).wait(timeout=10)).detail == "compensated"
    assert ran == ["a", "b", "c", "d", "undo d", "undo c", "undo a"]


@pytest.mark.parametrize("plain", [False, True])
async def test_what_tests_a_result_waits_for_what_was_spawned(app, ran, step, spawner, states, plain) -> None:
    flow = app.flow("f")
    grown = flow.add(spawner.job(fail=True), name="grown")
    flow.add(step("after"), after=[grown.when("n", "==", 1), *([grown] if plain else [])], name="after")
    inner = app.flow("inner")
    inner.add(step("inside"), name="x")
    flow.add(inner, after=grown.when("n", "==", 1), name="inner")
    flow.add(step("either"), after=any_of(grown.when("n", "==", 1), grown.failed), name="either")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        found = await states(run)
    assert (found["after"], found["inner/x"], found["either"]) == ("skipped", "skipped", "skipped")
    assert ran == ["spawned"]


async def test_a_map_that_a_join_released_waits_for_its_items_alone(app, listing, step) -> None:
    flow = app.flow("f")
    source = flow.add(listing.job())
    late = flow.add(step("late"), after=source.finished)
    mapped = flow.map(listing.item, source.result, after=any_of(source, late.failed), name="m")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        status = await run.wait(timeout=10)
        assert await run["m"].result(timeout=5) == [1, 2]
    assert (status.state, status[mapped.name].state) == ("succeeded", "succeeded")


async def test_a_parent_that_failed_does_not_cancel_the_source_of_a_map(app, listing, step, states) -> None:
    flow = app.flow("f")
    source = flow.add(listing.job(seconds=0.2), name="source")
    broken = flow.add(step("broken", fail=True), name="broken")
    flow.map(listing.item, source.result, after=broken.finished, name="m", on_error="cancel_siblings")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        found = await states(run)
    assert found["source"] == found["m"] == found["m[1]"] == "succeeded"


@pytest.mark.parametrize(("after", "state"), [("succeeded", "skipped"), ("finished", "failed"), ("failed", "failed")])
async def test_a_map_without_its_list_is_skipped_or_fails_as_after_says(app, listing, states, after, state) -> None:
    flow = app.flow("f")
    source = flow.add(listing.job(fail=True).options(attempts=1), name="source")
    flow.map(listing.item, source.result, after=getattr(source, after), name="m")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        assert (await states(run))["m"] == state
