"""Growth beside what ends at the same moment, and what waits for it by a choice or a race."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from flowrun import Job, JobFailed, any_of, race


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def together(app, order) -> Callable[..., object]:
    """Two handlers that end in one turn of the loop, so in one batch; one of them spawns what waits for the other."""
    met = asyncio.Barrier(2)

    @app.handler
    async def stored() -> int:
        await met.wait()
        return 1

    @app.handler
    async def begin(job: Job) -> None:
        spawned = job.spawn(slow.job(), name="spawned")
        job.spawn(note.job("late"), name="late", after=[spawned, "stored"])
        await met.wait()

    @app.handler
    async def slow() -> None:
        await asyncio.sleep(0.1)
        order.append("spawned")

    @app.handler
    async def note(name: str) -> None:
        order.append(name)

    return note


async def test_a_spawned_node_waits_for_all_when_a_stored_parent_ends_with_the_spawner(
    app, order, together, states
) -> None:
    flow = app.flow("f")
    stored = flow.add(app.job("stored"), name="stored")
    flow.add(app.job("begin"), name="begin")
    flow.add(together.job("never"), name="never", after=stored.failed)
    async with app, app.worker(concurrency=4):
        for _ in range(5):
            order.clear()
            found = await states(await flow.dispatch())
            assert order == ["spawned", "late"]
            assert found.pop("never") == "skipped"
            assert set(found.values()) == {"succeeded"}


@pytest.fixture
def grows(app, order) -> Callable[..., object]:
    """``grows.job(...)``: it returns 1, and spawns a job that takes a while, and does as it is told."""

    @app.handler(attempts=1)
    async def act(name: str, pause: float = 0.0, fail: bool = False) -> str:
        await asyncio.sleep(pause)
        order.append(name)
        if fail:
            raise ValueError("as written")
        return name

    @app.handler
    async def grow(job: Job, fail: bool = False, pause: float = 0.1) -> int:
        job.spawn(act.job("spawned", pause, fail), name=f"{job.name}-spawned")
        return 1

    grow.act = act
    return grow


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("join", ["race", "race of tests", "any_of", "any_of of tests", "test", "test and node"])
async def test_whatever_waits_for_a_job_waits_for_what_it_spawned(app, order, grows, states, join, fails) -> None:
    act = grows.act
    flow = app.flow("f")
    grow = flow.add(grows.job(fails), name="grow")
    other = flow.add(act.job("other", fail=True), name="other")
    after = {
        "race": race(grow, other),
        "race of tests": race(grow.when(1), other.when(1)),
        "any_of": any_of(grow, other),
        "any_of of tests": any_of(grow.when(1), other),
        "test": grow.when(1),
        "test and node": [grow.when(1), grow],
    }[join]
    flow.add(act.job("child"), name="child", after=after)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await states(run)
        assert found["child"] == ("skipped" if fails else "succeeded")
        assert order == (["other", "spawned"] if fails else ["other", "spawned", "child"])
        assert found["grow-spawned"] == ("failed" if fails else "succeeded")


async def test_a_test_that_is_not_passed_skips_whatever_was_spawned(app, order, grows, states) -> None:
    flow = app.flow("f")
    grow = flow.add(grows.job(), name="grow")
    flow.add(grows.act.job("child"), name="child", after=any_of(grow.when(2), grow.when(3)))
    async with app, app.worker(concurrency=4):
        found = await states(await flow.dispatch())
        assert found == {"grow": "succeeded", "grow-spawned": "succeeded", "child": "skipped"}


async def test_a_race_is_won_by_another_while_what_a_racer_spawned_runs(app, order, grows, states) -> None:
    """The racer has succeeded and is no loser; what it spawned goes on, and the flow's end waits for it."""
    won = asyncio.Event()

    @app.handler
    async def racer(job: Job) -> None:
        job.spawn(app.job("spawned"))

    @app.handler
    async def spawned() -> None:
        await won.wait()
        order.append("spawned")

    @app.handler
    async def child() -> None:
        order.append("child")
        won.set()

    flow = app.flow("f")
    first = flow.add(racer.job())
    other = flow.wait_for("go")
    flow.add(child.job(), after=race(first, other))
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run["racer"].result(timeout=10)
        await run.signal("go")
        assert set((await states(run)).values()) == {"succeeded"}
    assert order == ["child", "spawned"]


async def test_a_cleanup_node_runs_when_what_its_parent_spawned_is_cancelled(app, order, grows, until, states) -> None:
    flow = app.flow("f")
    grow = flow.add(grows.job(pause=30.0), name="grow")
    flow.add(grows.act.job("tidy"), name="tidy", after=grow, cleanup=True)
    flow.add(grows.act.job("child"), name="child", after=grow)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run["grow"].result(timeout=10)
        await run.cancel()
        found = await states(run)
    assert found == {"grow": "succeeded", "grow-spawned": "cancelled", "tidy": "succeeded", "child": "cancelled"}


async def test_a_spawned_race_cancels_a_stored_node(app, order, grows, states) -> None:
    @app.handler
    async def begin(job: Job) -> None:
        quick = job.spawn(grows.act.job("quick"), name="quick")
        job.spawn(grows.act.job("winner"), name="winner", after=race(quick, "stored"))

    flow = app.flow("f")
    flow.add(grows.act.job("stored", 30.0), name="stored")
    flow.add(begin.job(), name="begin")
    async with app, app.worker(concurrency=4):
        found = await states(await flow.dispatch())
    assert found == {"begin": "succeeded", "stored": "cancelled", "quick": "succeeded", "winner": "succeeded"}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("test", [False, True])
async def test_what_is_added_behind_a_node_waits_for_what_that_spawned(
    app, order, grows, states, until, late, test
) -> None:
    """Whether the node has spawned already or does so later."""
    begun = asyncio.Event()

    @app.handler
    async def first(job: Job) -> int:
        await begun.wait()
        job.spawn(grows.act.job("spawned", 0.1), name="spawned")
        return 1

    @app.handler
    async def adds(job: Job) -> None:
        if test:
            added = job.spawn(grows.act.job("added"), name="added", after=any_of("first", "never"))
        else:
            added = job.spawn(grows.act.job("added"), name="added", after="first")
        assert added

    flow = app.flow("f")
    flow.wait_for("go", name="gate")
    never = flow.add(grows.act.job("never", fail=True), name="never")
    flow.add(first.job(), name="first")
    flow.add(adds.job(), name="adds", after=["gate", never.failed])
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        if late:
            begun.set()
            await run["first"].result(timeout=10)
            await run.signal("go")
        else:
            await run.signal("go")
            await run["adds"].result(timeout=10)
            begun.set()
        assert (await states(run))["added"] == "succeeded"
    assert order == ["never", "spawned", "added"]


async def test_a_spawned_node_that_waits_for_what_waits_for_it_is_refused(app, order, grows) -> None:
    @app.handler(attempts=1)
    async def begin(job: Job, detached: bool) -> None:
        job.spawn(grows.act.job("x"), name="x", after="child", detached=detached)

    async with app, app.worker(concurrency=4):
        for detached in (False, True):
            flow = app.flow("f")
            parent = flow.add(begin.job(detached), name="begin")
            flow.add(grows.act.job("child"), name="child", after=parent)
            run = await flow.dispatch()
            await run.wait(timeout=10)
            if detached:
                assert order == ["child", "x"]
            else:
                with pytest.raises(JobFailed, match="'child', which waits for what is spawned here"):
                    await run["begin"].result(timeout=10)


async def test_what_a_spawned_node_spawns_can_wait_for_the_first_spawner(app, order, grows, states) -> None:
    @app.handler(attempts=1)
    async def begin(job: Job) -> None:
        job.spawn(again.job(), name="again")

    @app.handler(attempts=1)
    async def again(job: Job) -> None:
        job.spawn(grows.act.job("deep"), name="deep", after="begin")

    flow = app.flow("f")
    parent = flow.add(begin.job(), name="begin")
    flow.add(grows.act.job("child"), name="child", after=parent)
    async with app, app.worker(concurrency=4):
        assert set((await states(await flow.dispatch())).values()) == {"succeeded"}
    assert order == ["deep", "child"]
