"""Inner flows in a flow that is retried: what has ended is kept, what was cancelled begins."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import any_of, race


@pytest.fixture
def mends(app, ran):
    """Fails until ``mended`` is set."""
    mended: list[bool] = []

    @app.handler(attempts=1)
    async def mends() -> None:
        ran.append("mends")
        if not mended:
            raise ValueError("broken")

    mends.mended = mended
    return mends


@pytest.mark.parametrize("condition", ["finished", "failed"])
async def test_an_inner_flow_that_succeeded_is_kept(app, step, ran, mends, states, condition) -> None:
    """Also one that would not be entered now."""
    flow, inner = app.flow("f"), app.flow("inner")
    first = flow.add(mends.job(), name="first")
    good = inner.add(step("good"), name="good")
    inner.add(step("never"), after=good.failed, name="never")
    inner.add(step("not this"), after=[good.finished, good.failed], name="not this")
    node = flow.add(inner, after=getattr(first, condition))
    flow.add(step("after"), after=node, name="after")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        mends.mended.append(True)
        assert await run.retry() == 1
        found = await states(run)
        assert (await run.status()).state == "succeeded"
        assert (await run["inner"].status()).state == "succeeded"
    assert found == {
        "first": "succeeded",
        "inner/good": "succeeded",
        "inner/never": "skipped",
        "inner/not this": "skipped",
        "after": "succeeded",
    }
    assert sorted(ran) == ["after", "good", "mends", "mends"]


async def test_an_inner_flow_that_lost_a_race_stays_cancelled(app, step, ran, mends, states, until) -> None:
    flow, inner = app.flow("f"), app.flow("inner")
    first = flow.add(mends.job(), name="first")
    inner.wait_for("never")
    loser = flow.add(inner, after=first.finished)
    gate = flow.wait_for("go")
    flow.add(step("winner"), after=race(loser, gate), name="winner")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()

        async def begun() -> bool:
            return bool(await app.gates.list()) and (await run.status())["first"].state == "failed"

        await until(begun)
        await run.signal("go")
        await run.wait(timeout=10)
        mends.mended.append(True)
        assert await run.retry() == 1
        found = await states(run)
        assert (await run.status()).state == "succeeded"
        assert (await run["inner"].status()).state == "cancelled"
    assert found == {
        "first": "succeeded",
        "inner/never": "cancelled",
        "go": "succeeded",
        "winner": "succeeded",
    }
    assert ran == ["mends", "winner", "mends"]


@pytest.mark.parametrize("nodes", [0, 1, 2])
async def test_an_inner_flow_that_was_cancelled_before_it_began_runs_after_a_retry(
    app, step, ran, states, nodes
) -> None:
    flow, inner, deep = app.flow("f"), app.flow("inner"), app.flow("deep")
    gate = flow.wait_for("go")
    for number in range(nodes):
        deep.add(step(f"x{number}"), name=f"x{number}", after=any_of("x0") if number else None)
    inner.add(deep)
    node = flow.add(inner, after=gate)
    flow.add(step("after"), after=node, name="after")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.cancel()
        assert (await run.wait(timeout=10)).state == "cancelled"
        assert await run.retry() > 0
        await run.signal("go")
        found = await states(run)
        assert (await run.status()).state == "succeeded"
        assert (await run["inner"].status()).state == "succeeded"
    assert set(found.values()) == {"succeeded"}
    assert ran == [*(f"x{number}" for number in range(nodes)), "after"]


async def test_a_cancelled_inner_flow_ends_after_its_cleanup_also_when_what_is_before_it_is_retried(
    app, step, ran, states, until
) -> None:
    """What is retried is only skipped: what it waits for was cancelled, too."""
    may_end, cleaning = asyncio.Event(), asyncio.Event()

    @app.handler
    async def holds() -> None:
        ran.append("holds")
        await asyncio.sleep(60)

    @app.handler
    async def tidies() -> None:
        cleaning.set()
        await may_end.wait()
        ran.append("tidies")

    flow, inner = app.flow("f"), app.flow("inner")
    hold = flow.add(holds.job(), name="hold")
    before = flow.add(step("before"), after=hold, name="before")
    between = flow.add(step("between"), after=before, name="between")
    inner.add(step("work"), name="work")
    inner.add(tidies.job(), cleanup=True, name="tidy")
    flow.add(inner, after=between)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: "holds" in ran)
        await run.cancel()
        await asyncio.wait_for(cleaning.wait(), 10)
        await run["between"].retry()
        assert (await run["inner"].status()).finished_at is None
        assert (await run.status()).finished_at is None
        may_end.set()
        await run.wait(timeout=10)
        found = await states(run)
        assert (await run["inner"].status()).state == "cancelled"
    assert found == {
        "hold": "cancelled",
        "before": "cancelled",
        "between": "skipped",
        "inner/work": "cancelled",
        "inner/tidy": "succeeded",
    }
    assert ran == ["holds", "tidies"]


async def test_what_is_skipped_while_it_waits_does_not_run_later(app, step, ran, states, until) -> None:
    """A cleanup node waits for a node that was cancelled, which is retried and only skipped, and for one that runs."""
    may_end = asyncio.Event()

    @app.handler
    async def holds() -> None:
        ran.append("holds")
        await may_end.wait()

    flow = app.flow("f")
    hold = flow.add(holds.job(), name="hold")
    before = flow.add(step("before"), after=hold, name="before")
    between = flow.add(step("between"), after=before, name="between")
    flow.add(step("tidy"), after=[between, hold], cleanup=True, name="tidy")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: "holds" in ran)
        await run["between"].cancel()
        await run["before"].cancel()
        await run["between"].retry()
        assert (await run["tidy"].status()).state == "skipped"
        may_end.set()
        await run.wait(timeout=10)
        found = await states(run)
    assert found == {"hold": "succeeded", "before": "cancelled", "between": "skipped", "tidy": "skipped"}
    assert ran == ["holds"]
