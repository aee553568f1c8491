"""Flows inside flows."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import FlowFailed, JobSkipped, any_of


def inner_flow(app, step, name: str = "inner", **last):
    inner = app.flow(name)
    inner.chain(step("x"), step("y", **last))
    return inner


async def test_a_flow_runs_as_a_node(app, step, ran, states) -> None:
    flow = app.flow("outer")
    a = flow.add(step("a"), name="a")
    inner = flow.add(inner_flow(app, step), after=a)
    flow.add(step("b"), after=inner, name="b")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == "b"
        assert await states(run) == dict.fromkeys(["a", "inner/step", "inner/step-2", "b"], "succeeded")
        assert await run["inner"].result(timeout=10) == "y"
        assert await run["inner/step"].result(timeout=10) == "x"
    assert ran == ["a", "x", "y", "b"]


async def test_its_result_is_passed_on(app, step) -> None:
    seen = []

    @app.handler
    async def look(one: object, many: object, chosen: object, part: object) -> None:
        seen.append((one, many, chosen, part))

    flow = app.flow("outer")
    one = flow.add(inner_flow(app, step), name="one")
    group = app.flow("group")
    group.add(step("p"), name="p")
    group.add(step("q"), name="q")
    many = flow.add(group, name="many")
    picked = app.flow("picked", output="step")
    picked.chain(step("first"), step("second"))
    chosen = flow.add(picked, name="chosen")
    flow.add(look.job(one=one.result, many=many.result, chosen=chosen.result, part=many.result["q"]))
    async with app.worker(concurrency=4):
        await (await flow.dispatch()).result(timeout=10)
    assert seen == [("y", {"p": "p", "q": "q"}, "first", "q")]


async def test_its_result_is_the_outer_flows_when_it_comes_last(app, step) -> None:
    flow, inner = app.flow("outer"), app.flow("inner")
    inner.add(step("p"), name="p")
    inner.add(step("q"), name="q")
    flow.add(inner, after=flow.add(step("a")))
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == {"p": "p", "q": "q"}
        assert await run["inner"].result(timeout=10) == {"p": "p", "q": "q"}


async def test_a_skipped_flow_runs_nothing(app, step, ran, states) -> None:
    flow, inner, deep = app.flow("outer"), app.flow("inner"), app.flow("deep")
    bad = flow.add(step("bad", fail=True), name="bad")
    node = flow.add(inner, after=bad)
    x = inner.add(step("x"), name="x")
    inner.add(step("y"), after=x.finished, name="y")
    inner.add(step("z"), after=any_of(x.failed, "y"), name="z")
    inner.add(deep, after=x.finished)
    deep.add(step("d"), name="d")
    flow.add(step("after"), after=node, name="after")
    flow.add(step("anyway"), after=node.finished, name="anyway")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await states(run)
        with pytest.raises(JobSkipped):
            await run["inner"].result(timeout=10)
    skipped = ["inner/x", "inner/y", "inner/z", "inner/deep/d", "after"]
    assert found == {"bad": "failed", **dict.fromkeys(skipped, "skipped"), "anyway": "succeeded"}
    assert ran == ["bad", "anyway"]


async def test_a_failing_flow_fails_the_outer_one_which_names_the_job(app, step, ran, states) -> None:
    flow = app.flow("outer")
    inner = flow.add(inner_flow(app, step, fail=True))
    flow.add(step("good"), after=inner, name="good")
    flow.add(step("sorry"), after=inner.failed, name="sorry")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        with pytest.raises(FlowFailed, match="inner/step-2") as failure:
            await run.result(timeout=10)
        assert failure.value.failed == ("inner/step-2",)
        found = await states(run)
    assert (found["good"], found["sorry"]) == ("skipped", "succeeded")


async def test_an_optional_flow_that_fails_stops_nothing(app, step, states) -> None:
    flow = app.flow("outer")
    inner = flow.add(inner_flow(app, step, fail=True), optional=True)
    flow.add(step("good", given=inner.result), after=inner, name="good")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == "good"
        assert (await states(run))["inner/step-2"] == "failed"


async def test_a_job_inside_uses_a_result_from_outside(app) -> None:
    @app.handler
    async def make() -> dict[str, int]:
        return {"n": 20}

    @app.handler
    async def double(n: int) -> int:
        return 2 * n

    flow, inner, deep = app.flow("outer"), app.flow("inner"), app.flow("deep")
    made = flow.add(make.job())
    flow.add(inner)
    inner.add(deep)
    deep.add(double.job(n=made.result["n"]))
    async with app.worker(concurrency=4):
        assert await (await flow.dispatch()).result(timeout=10) == 40


async def test_conditions_of_every_kind_on_a_flow(app, step, states) -> None:
    flow = app.flow("outer")
    good = flow.add(inner_flow(app, step), name="good")
    bad = flow.add(inner_flow(app, step, fail=True), name="bad")
    flow.add(step("1"), after=any_of(good.failed, bad.failed), name="1")
    flow.add(step("2"), after=[good, bad.finished], name="2")
    flow.add(step("3"), after=[good.failed], name="3")
    async with app.worker(concurrency=4):
        found = await states(await flow.dispatch())
    assert [found[name] for name in "123"] == ["succeeded", "succeeded", "skipped"]


async def test_thirty_flows_deep(app, step, ran, states) -> None:
    flow = root = app.flow("f")
    before = flow.add(step("first"))
    for _ in range(30):
        inner = app.flow("f")
        flow.add(inner, after=before)
        before = inner.add(step("inside"))
        flow = inner
    async with app.worker(concurrency=4):
        run = await root.dispatch()
        assert set((await states(run)).values()) == {"succeeded"}
    assert len(ran) == 31


async def test_the_status_of_nodes_inside_while_it_runs(app, step, until) -> None:
    release = asyncio.Event()

    @app.handler
    async def slow() -> None:
        await release.wait()

    flow, inner = app.flow("outer"), app.flow("inner")
    inner.add(slow.job(), name="slow")
    inner.add(step("x"), after="slow", name="x")
    flow.add(inner)
    async with app.worker(concurrency=4):
        run = await flow.dispatch()

        async def running() -> bool:
            return (await run.status())["inner/slow"].state == "running"

        await until(running)
        status = await run.status()
        assert (status.state, status["inner/x"].state) == ("running", "waiting")
        release.set()
        await run.wait(timeout=10)
        inside = await app.get_flow((await run.status())["inner/x"].flow_id)
        assert inside.name == "inner"
        assert (await inside.status()).state == "succeeded"
        assert set((await inside.status()).nodes) == {"inner/slow", "inner/x"}


async def test_a_flow_as_a_node_has_a_status(app, step) -> None:
    flow = app.flow("outer")
    flow.add(inner_flow(app, step), name="inner")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run["inner"].wait(timeout=10)).state == "succeeded"
        assert (await run["inner"].status()).name == "inner"


async def test_an_inner_flow_counts_its_jobs(app, step, connection) -> None:
    deep = app.flow("deep")
    deep.add(step("x"))
    inner = app.flow("inner")
    inner.add(deep)
    inner.add(step("y"))
    flow = app.flow("f")
    flow.add(inner)
    flow.add(step("z"))
    async with app:
        await flow.dispatch()
        counts = dict(await connection.fetch("select name, jobs from flowrun.flow_status"))
    assert counts == {"f": 3, "inner": 2, "deep": 1}
