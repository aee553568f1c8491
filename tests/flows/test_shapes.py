"""Chains, groups, trees, conditions and joins."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import FlowFailed, any_of, at_least


@pytest.mark.parametrize("as_list", [False, True])
async def test_a_chain(app, step, ran, as_list: bool) -> None:
    jobs = [step(name) for name in "abcde"]
    async with app.worker(concurrency=4):
        run = await (app.chain(jobs) if as_list else app.chain(*jobs)).dispatch()
        assert await run.result(timeout=10) == "e"
    assert ran == list("abcde")


@pytest.mark.parametrize("as_list", [False, True])
async def test_a_group_runs_side_by_side(app, as_list: bool) -> None:
    together = asyncio.Barrier(3)

    @app.handler
    async def meet(name: str) -> str:
        await together.wait()  # each waits for the others: one after another they would never end
        return name

    jobs = [meet.job(name=name) for name in "abc"]
    async with app.worker(concurrency=3):
        run = await (app.group(jobs) if as_list else app.group(*jobs)).dispatch()
        assert await run.result(timeout=10) == {"meet": "a", "meet-2": "b", "meet-3": "c"}


async def test_chains_and_groups_inside_a_flow(app, step, ran) -> None:
    flow = app.flow("f")
    pay = flow.add(step("pay"))
    both = flow.group(step("x"), step("y"), after=pay)
    flow.chain([step("p"), step("q")], after=both)
    async with app.worker(concurrency=4):
        assert await (await flow.dispatch()).result(timeout=10) == "q"
    assert (ran[0], set(ran[1:3]), ran[3:]) == ("pay", {"x", "y"}, ["p", "q"])


async def test_parents_first_to_three_levels(app, step, ran, states) -> None:
    """The parent/child form: add_child on the flow, add_child on the node, then."""
    flow = app.flow("family")
    root = flow.add(step("root"), name="root")
    for i in "ab":
        child = flow.add_child(root, step(f"root.{i}"), name=f"root.{i}")
        for j in "ab":
            grandchild = child.add_child(step(f"root.{i}.{j}"), name=f"root.{i}.{j}")
            grandchild.then(step(f"root.{i}.{j}.x"), name=f"root.{i}.{j}.x")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await states(run)
    assert set(found.values()) == {"succeeded"}
    assert len(ran) == len(set(ran)) == 11
    for name in ran:
        if "." in name:
            assert ran.index(name.rpartition(".")[0]) < ran.index(name)


async def test_each_condition_after_each_outcome(app, step, ran, states) -> None:
    flow = app.flow("table")
    parents = {
        "good": flow.add(step("good"), name="good"),
        "bad": flow.add(step("bad", fail=True), name="bad"),
        "maybe": flow.add(step("maybe", fail=True, optional=True), name="maybe"),
    }
    parents["skipped"] = flow.add(step("skipped"), name="skipped", after=parents["bad"])
    for name, node in parents.items():
        flow.add(step("x"), name=f"{name} succeeded", after=node.succeeded)
        flow.add(step("x"), name=f"{name} failed", after=node.failed)
        flow.add(step("x"), name=f"{name} finished", after=node.finished)
    async with app.worker(concurrency=4):
        found = await states(await flow.dispatch())
    run = {name for name, state in found.items() if state == "succeeded"}
    assert run == {
        "good", "good succeeded", "good finished",
        "bad failed", "bad finished",
        "maybe succeeded", "maybe failed", "maybe finished",
        "skipped finished",
    }  # fmt: skip
    assert {found[name] for name in found.keys() - run - {"bad", "maybe"}} == {"skipped"}


async def test_any_of_is_released_by_the_first_and_runs_once(app, step, ran) -> None:
    release = asyncio.Event()

    @app.handler
    async def slow() -> str:
        await release.wait()
        return "slow"

    flow = app.flow("first", output="decide")
    quick, late = flow.add(step("quick")), flow.add(slow.job())
    flow.add(step("decide"), after=any_of(quick, late), name="decide")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run["decide"].result(timeout=10) == "decide"  # while the other parent is still running
        assert (await run["slow"].status()).state == "running"
        assert (await run.status()).state == "running"
        release.set()
        assert await run.result(timeout=10) == "decide"
    assert ran == ["quick", "decide"]


async def test_any_of_is_skipped_when_nobody_can_satisfy_it_any_more(app, step, ran, states) -> None:
    flow = app.flow("none")
    a, b = flow.add(step("a", fail=True), name="a"), flow.add(step("b", fail=True), name="b")
    flow.add(step("c"), after=any_of(a, b), name="c")
    flow.add(step("d"), after=any_of(a.failed, b), name="d")
    async with app.worker(concurrency=2):
        found = await states(await flow.dispatch())
    assert found == {"a": "failed", "b": "failed", "c": "skipped", "d": "succeeded"}


@pytest.mark.parametrize(("failing", "state"), [(0, "succeeded"), (1, "succeeded"), (2, "skipped"), (3, "skipped")])
async def test_at_least_two_of_three(app, step, states, failing: int, state: str) -> None:
    flow = app.flow("quorum")
    voters = [flow.add(step("v", fail=n < failing), name=f"v{n}") for n in range(3)]
    flow.add(step("pick"), after=at_least(2, *voters), name="pick")
    async with app.worker(concurrency=3):
        assert (await states(await flow.dispatch()))["pick"] == state


async def test_a_join_beside_plain_conditions(app, step, ran, states) -> None:
    flow = app.flow("mixed")
    good, bad = flow.add(step("good"), name="good"), flow.add(step("bad", fail=True), name="bad")
    flow.add(step("x"), after=[good, any_of(bad, good)], name="both")
    flow.add(step("x"), after=[bad.finished, any_of(bad, good.failed)], name="join fails")
    flow.add(step("x"), after=[bad, any_of(bad, good)], name="condition fails")
    flow.add(step("x"), after=[any_of(bad, good), at_least(2, good, bad.failed)], name="two joins")
    async with app.worker(concurrency=3):
        found = await states(await flow.dispatch())
    assert {name: state for name, state in found.items() if " " in name or name == "both"} == {
        "both": "succeeded",
        "join fails": "skipped",
        "condition fails": "skipped",
        "two joins": "succeeded",
    }


async def test_a_diamond_joins_once(app, step, ran) -> None:
    flow = app.flow("diamonds")
    top = flow.add(step("top"))
    for level in range(5):
        sides = flow.group(*(step(f"{level}{side}") for side in "abc"), after=top)
        top = flow.add(step(f"join{level}"), after=sides)
    async with app.worker(concurrency=8):
        await (await flow.dispatch()).result(timeout=10)
    assert len(ran) == len(set(ran)) == 21


async def test_a_parent_named_twice_is_one_edge(app, step, ran) -> None:
    flow = app.flow("twice")
    a = flow.add(step("a"), name="a")
    flow.add(step("b", given=a.result), after=[a, "a", a.succeeded])
    async with app.worker(concurrency=1):
        assert await (await flow.dispatch()).result(timeout=10) == "b"


async def test_nodes_named_before_they_are_written(app, step, ran) -> None:
    flow = app.flow("backwards")
    flow.add(step("c"), after=["a", "b"], name="c")
    flow.add(step("b"), after="a", name="b")
    flow.add(step("a"), name="a")
    async with app.worker(concurrency=4):
        assert await (await flow.dispatch()).result(timeout=10) == "c"
    assert ran == ["a", "b", "c"]


async def test_an_empty_flow_succeeds_at_once(app, step) -> None:
    async with app.worker(concurrency=1):
        run = await app.flow("empty").dispatch()
        assert (await run.wait(timeout=10)).state == "succeeded"
        assert await run.result(timeout=10) == {}


async def test_a_flow_has_not_ended_while_a_node_runs_whose_child_is_skipped_already(app, step, states) -> None:
    release = asyncio.Event()

    @app.handler(attempts=1)
    async def slow() -> None:
        await release.wait()
        raise ValueError("late")

    flow = app.flow("early skip")
    good, late = flow.add(step("good"), name="good"), flow.add(slow.job(), name="late")
    flow.add(step("child"), after=[good.failed, late], name="child")
    flow.on_finish(step("callback"), name="callback")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run["child"].wait(timeout=10)).state == "skipped"
        assert (await run["late"].status()).state == "running"
        with pytest.raises(TimeoutError):
            await run.wait(timeout=0.2)
        assert (await run["callback"].status()).state == "waiting"
        release.set()
        with pytest.raises(FlowFailed, match="late"):
            await run.result(timeout=10)
