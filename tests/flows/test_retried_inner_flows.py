"""Inner flows in a flow that is retried: what has ended is kept, what was cancelled begins."""

from __future__ import annotations

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
