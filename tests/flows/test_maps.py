"""One node an item of a parent's result."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import FlowFailed, InvalidArguments, InvalidFlow, NotFound, any_of


@pytest.fixture
def items(app):
    """A job that returns what it is given."""

    @app.handler
    async def items(value: object) -> object:
        return value

    return items


@pytest.fixture
def double(app):
    @app.handler(attempts=1)
    async def double(number: int, times: int = 2) -> int:
        if number < 0:
            raise ValueError("negative")
        await asyncio.sleep(0.001 * (number % 3))
        return number * times

    return double


async def test_results_come_in_the_order_of_the_items(app, items, double) -> None:
    flow = app.flow("f")
    source = flow.add(items.job({"numbers": [3, 1, 2]}))
    doubled = flow.map(double, over=source.result["numbers"])
    flow.add(items.job(doubled.result), name="all")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == [6, 2, 4]
        status = await run.status()
        assert [status[f"double[{n}]"].state for n in range(3)] == ["succeeded"] * 3
        assert await run["double[1]"].result(timeout=5) == 2


async def test_an_empty_list_is_done_at_once(app, items, double) -> None:
    flow = app.flow("f")
    source = flow.add(items.job([]))
    flow.map(double, over=source.result)
    async with app, app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) == []


async def test_a_list_and_other_arguments(app, items, double) -> None:
    flow = app.flow("f")
    times = flow.add(items.job(10))
    flow.map(double.job(times=times.result), over=[1, 2])
    async with app, app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) == [10, 20]


async def test_by_name(app, double) -> None:
    flow = app.flow("f")
    flow.map(app.job("double", {"number": 5}), over=[1, 2], argument="times")
    with pytest.raises(InvalidFlow, match="argument= must name"):
        flow.map(app.job("unknown"), over=[1])
    with pytest.raises(InvalidFlow, match="argument= must name"):
        flow.map(app.job("double", {"number": 5}), over=[1], argument="number")
    with pytest.raises(InvalidArguments, match="triple"):
        flow.map(app.job("double", {"triple": 5}), over=[1])
    with pytest.raises(InvalidFlow, match="on_error="):
        flow.map(double, over=[1], on_error="explode")
    async with app, app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) == [5, 10]


async def test_ten_thousand_items(app, double) -> None:
    flow = app.flow("f")
    flow.map(double, over=list(range(10_000)))
    async with app, app.worker(concurrency=100):
        result = await (await flow.dispatch()).result(timeout=50)
    assert result == [number * 2 for number in range(10_000)]


@pytest.mark.parametrize(("value", "says"), [({"a": 1}, "a dict"), (None, "null"), ("text", "a str")])
async def test_over_what_is_no_list(app, items, double, value, says) -> None:
    flow = app.flow("f")
    source = flow.add(items.job(value))
    mapped = flow.map(double, over=source.result, name="m")
    flow.add(items.job("told"), after=mapped.failed, name="told")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        status = await run.wait(timeout=10)
        assert (status["m"].state, status["told"].state) == ("failed", "succeeded")
        assert says in (status["m"].error or "")


async def test_items_that_fail(app, items, double) -> None:
    flow = app.flow("f")
    mapped = flow.map(double, over=[1, -1, 2], name="m")
    flow.add(items.job(mapped.result), name="after")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        with pytest.raises(FlowFailed, match="negative"):
            await run.result(timeout=10)
        status = await run.status()
        found = {name: job.state for name, job in status.nodes.items()}
        assert found == {"m": "failed", "m[0]": "succeeded", "m[1]": "failed", "m[2]": "succeeded", "after": "skipped"}
        assert status["m"].error == "1 of 3 items failed"


async def test_optional_items_may_fail(app, items, double) -> None:
    flow = app.flow("f")
    mapped = flow.map(double, over=[1, -1, 2], optional=True)
    flow.add(items.job(mapped.result), name="after")
    async with app, app.worker(concurrency=4):
        assert await (await flow.dispatch()).result(timeout=10) == [2, None, 4]


async def test_siblings_are_cancelled_when_one_fails(app, until) -> None:
    begun = []

    @app.handler(attempts=1)
    async def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            while len(begun) < 3:
                await asyncio.sleep(0.005)
            raise ValueError("broke")
        await asyncio.sleep(60)

    flow = app.flow("f")
    flow.map(work, over=list(range(6)), name="m", on_error="cancel_siblings")
    async with app, app.worker(concurrency=3):
        status = await (await flow.dispatch()).wait(timeout=15)
    assert status.state == "failed"
    found = [status[f"m[{n}]"].state for n in range(6)]
    assert found == ["failed"] + ["cancelled"] * 5
    assert status["m"].state == "failed"
    assert len(begun) < 6


async def test_a_map_in_an_inner_flow_after_a_parent(app, items, double) -> None:
    inner = app.flow("inner")
    inner.map(double, over=[1, 2], name="m")
    flow = app.flow("f")
    source = flow.add(items.job(1))
    node = flow.add(inner, after=source)
    flow.add(items.job(node.result), name="after")
    async with app, app.worker(concurrency=4):
        assert await (await flow.dispatch()).result(timeout=10) == [2, 4]


async def test_items_are_known_by_name_before_they_are_there(app) -> None:
    """Also on the run that was dispatched, which has looked at nothing since."""

    @app.handler
    async def items() -> list[int]:
        return [1, 2, 3]

    @app.handler
    async def double(item: int) -> int:
        return item * 2

    flow = app.flow("f")
    flow.map(double, over=flow.add(items.job()).result, name="q")
    async with app:
        run = await flow.dispatch()
        item = run["q[1]"]
        with pytest.raises(NotFound):
            await item.status()
        async with app.worker():
            await run.wait(timeout=10)
            assert await item.result(timeout=10) == 4
        again = await app.get_flow(run.id)
    assert [again[f"q[{number}]"].id for number in range(3)] == [run[f"q[{number}]"].id for number in range(3)]
    for name in ("q[01]", "q[x]", "q[-1]", "q[]", "p[0]", "q[0", "q[1][1]"):
        with pytest.raises(NotFound, match="has no node"):
            run[name]


@pytest.mark.parametrize("condition", ["finished", "failed"])
@pytest.mark.parametrize("fails", [False, True])
async def test_what_after_says_of_the_source_holds_for_a_map_too(
    app, items, double, step, states, condition, fails
) -> None:
    flow = app.flow("f")
    source = flow.add(step("source", fail=True) if fails else items.job([1, 2]), name="source")
    mapped = flow.map(double, over=source.result, after=getattr(source, condition), name="m")
    flow.add(items.job("told"), after=mapped.failed, name="told")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        found = await states(run)
        status = await run.status()
    if fails:
        assert (found["m"], found["told"]) == ("failed", "succeeded")
        assert "its source did not succeed" in (status["m"].error or "")
    else:
        assert found["m"] == ("succeeded" if condition == "finished" else "skipped")


async def test_an_item_list_that_only_a_join_names_must_be_there(app, items, double, step, states) -> None:
    flow = app.flow("f")
    source = flow.add(items.job([1, 2]), name="source")
    other = flow.add(step("other"), name="other")
    flow.map(double, over=source.result, after=any_of(source, other), name="m")
    async with app, app.worker(concurrency=2):
        assert set((await states(await flow.dispatch())).values()) == {"succeeded"}
