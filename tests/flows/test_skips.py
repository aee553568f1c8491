"""Why a node was skipped: a node that people know, whatever stands between the two."""

from __future__ import annotations

import pytest

from flowrun import FlowStatus, any_of, at_least, race


def because(status: FlowStatus) -> dict[str, str | None]:
    """Of the skipped nodes: the name of the one because of which."""
    names = {job.id: name for name, job in status.nodes.items()}
    return {
        name: None if job.cause is None else names[job.cause]
        for name, job in status.nodes.items()
        if job.state == "skipped"
    }


@pytest.mark.parametrize("join", [any_of, race, lambda *nodes: at_least(2, *nodes)])
async def test_joins_are_looked_through(app, step, join) -> None:
    flow = app.flow("f")
    bad = flow.add(step("bad", fail=True), name="bad")
    worse = flow.add(step("worse", fail=True), after=bad.finished, name="worse")
    other = flow.add(step("other"), name="other")
    flow.add(step("joined"), after=[other, join(bad, worse)], name="joined")
    async with app.worker():
        status = await (await flow.dispatch()).wait(timeout=10)
    assert because(status)["joined"] in {"bad", "worse"}
    assert status["joined"].error is not None
    assert "(" not in status["joined"].error


async def test_of_a_flow_the_node_that_failed(app, step) -> None:
    deep = app.flow("deep")
    deep.add(step("fine"), name="fine")
    deep.add(step("bad", fail=True), name="bad")
    inner = app.flow("inner")
    inner.add(deep)
    flow = app.flow("f")
    node = flow.add(inner)
    later = app.flow("later")
    first = later.add(step("first"), name="first")
    later.add(step("second"), after=first, name="second")
    flow.add(later, after=node)
    flow.on_success(step("happy"), name="happy")
    async with app.worker():
        run = await flow.dispatch()
        await run.wait(timeout=10)
        await run["happy"].wait(timeout=10)
        status = await run.status()
    blamed = "inner/deep/bad"
    assert because(status) == {"later/first": blamed, "later/second": "later/first", "happy": blamed}


async def test_of_a_flow_that_went_well_the_last_node(app, step) -> None:
    inner = app.flow("inner")
    a = inner.add(step("a"), name="a")
    inner.add(step("b"), after=a, name="b")
    flow = app.flow("f")
    node = flow.add(inner)
    flow.add(step("not needed"), after=node.failed, name="not needed")
    pay = flow.add(step("pay"), after=node, name="pay", compensate=step("refund"))
    flow.add(step("end"), after=pay, name="end")
    flow.on_failure(step("sorry"), name="sorry")
    async with app.worker():
        run = await flow.dispatch()
        await run.wait(timeout=10)
        await run["sorry"].wait(timeout=10)
        status = await run.status()
    assert because(status) == {"not needed": "inner/b", "sorry": "end", "step": "end"}
    assert status["sorry"].error == "its parent f succeeded; it was to fail"


async def test_of_an_empty_flow_there_is_none(app, step) -> None:
    flow = app.flow("f")
    flow.on_failure(step("sorry"), name="sorry")
    async with app.worker():
        run = await flow.dispatch()
        assert because(await run.wait(timeout=10)) in ({}, {"sorry": None})
        assert (await run["sorry"].wait(timeout=10)).cause is None


async def test_skipped_again_for_a_reason_that_is_seen(app, ran, step) -> None:
    flow = app.flow("f")
    a = flow.add(step("a", fail=True), name="a")
    b = flow.add(step("b", fail=True), name="b")
    c = flow.add(step("c"), name="c")
    flow.add(step("joined"), after=[c, any_of(a, b)], name="joined")
    async with app.worker():
        run = await flow.dispatch()
        await run.wait(timeout=10)
        await run["a"].retry()
        await run["a"].wait(timeout=10)
        status = await run.wait(timeout=10)
    assert because(status)["joined"] in {"a", "b"}
