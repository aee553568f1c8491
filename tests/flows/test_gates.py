"""Nodes that wait: for a signal, for a time; and conditions on what comes of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from flowrun import FlowFailed, InvalidArguments, InvalidFlow, NotFound


@pytest.fixture
def give(app):
    @app.handler
    async def give(value: object) -> object:
        return value

    return give


async def test_a_signal_opens_the_gate_that_waits(app, step, connection, until) -> None:
    flow = app.flow("f")
    first = flow.add(step("first"), name="first")
    gate = flow.wait_for("approved", after=first)
    flow.add(step("then", given=gate.result), after=gate, name="then")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()

        async def reached() -> bool:
            return bool(await connection.fetchval("select count(*) from flowrun.gates"))

        await until(reached)
        assert (await run.status())["approved"].state == "waiting"
        assert await run.signal("approved", {"by": "ann"}, actor="ann") is True
        assert await run["approved"].result(timeout=10) == {"by": "ann"}
        assert (await run.wait(timeout=10)).state == "succeeded"
    assert await connection.fetchval("select count(*) from flowrun.gates") == 0
    assert await connection.fetchval("select actor from flowrun.audit where verb = 'signal'") == "ann"


async def test_a_signal_before_the_gate_is_reached(app, step, give) -> None:
    flow = app.flow("f")
    first = flow.add(step("first"))
    gate = flow.wait_for("go", after=first)
    flow.add(give.job(gate.result))
    async with app:
        run = await flow.dispatch()
        assert await run.signal("go", [1]) is True
        assert await run.signal("go", [2]) is False
        async with app.worker(concurrency=2):
            assert await run.result(timeout=10) == [1]


async def test_one_signal_opens_all_gates_of_its_name(app) -> None:
    flow = app.flow("f")
    inner = app.flow("inner")
    inner.wait_for("go")
    flow.wait_for("go")
    flow.wait_for("go")
    flow.add(inner)
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.signal("go", 1)
        status = await run.wait(timeout=10)
    assert {name: job.state for name, job in status.nodes.items()} == dict.fromkeys(
        ["go", "go-2", "inner/go"], "succeeded"
    )


async def test_a_gate_whose_time_is_over(app, step, states) -> None:
    flow = app.flow("f")
    gate = flow.wait_for("go", timeout=0.1)
    flow.add(step("yes"), after=gate, name="yes")
    flow.add(step("no"), after=gate.failed, name="no")
    other = app.flow("g")
    other.wait_for("go", timeout=0.1, default="no", answers=["yes", "no"])
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await states(run) == {"go": "failed", "yes": "skipped", "no": "succeeded"}
        assert (await run.status())["go"].error_type == "flowrun.GateTimeout"
        with pytest.raises(FlowFailed, match="failed: go"):
            await run.result(timeout=5)
        assert await (await other.dispatch()).result(timeout=10) == "no"
        assert await run.signal("go", 1) is True  # nobody waits for it any more, and nothing comes of it
        assert (await run.status())["go"].state == "failed"


async def test_a_person_decides(app, step, states) -> None:
    def asking() -> object:
        flow = app.flow("f")
        gate = flow.wait_for("ship?", answers=["yes", "no"])
        flow.add(step("ship"), after=gate.when("yes"), name="ship")
        flow.add(step("keep"), after=gate.when("no"), name="keep")
        return flow

    async with app, app.worker(concurrency=2):
        yes, no = await asking().dispatch(), await asking().dispatch()
        with pytest.raises(InvalidArguments, match="takes one of 'yes', 'no'; got 'maybe'"):
            await yes.signal("ship?", "maybe")
        await yes.signal("ship?", "yes")
        await no.signal("ship?", "no")
        assert await states(yes) == {"ship?": "succeeded", "ship": "succeeded", "keep": "skipped"}
        assert await states(no) == {"ship?": "succeeded", "ship": "skipped", "keep": "succeeded"}
        assert (await yes.status()).state == "succeeded"


async def test_signals_nobody_waits_for(app, step) -> None:
    flow = app.flow("f")
    flow.wait_for("go")
    alone = app.flow("g")
    alone.add(step("x"))
    async with app:
        with pytest.raises(NotFound, match="no signal 'gone'; its gates wait for 'go'"):
            await (await flow.dispatch()).signal("gone")
        with pytest.raises(NotFound, match="it has no gates"):
            await (await alone.dispatch()).signal("go")
        with pytest.raises(InvalidArguments, match="cannot be stored"):
            await (await app.get_flow((await app.chain(step("y")).dispatch()).id)).signal("go", float("nan"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": -1}, "not negative"),
        ({"timeout": True}, "seconds"),
        ({"answers": []}, "at least one"),
        ({"answers": ["yes"], "default": "no"}, "not one of the answers"),
    ],
)
async def test_gates_that_cannot_be(app, options, says) -> None:
    with pytest.raises(InvalidFlow, match=says):
        app.flow("f").wait_for("go", **options)


async def test_signals_and_time_limits_at_the_same_moment(app) -> None:
    """Whichever comes first, the gate is decided once and its flow ends."""

    async def one(number: int) -> None:
        flow = app.flow("f")
        gate = flow.wait_for("go", timeout=0.05, default="late")
        flow.add(app.job("echo", {"value": gate.result}))
        run = await flow.dispatch()
        await asyncio.sleep(0.03 + number * 0.002)
        came = await run.signal("go", "signal")
        result = await run.result(timeout=10)
        assert came
        assert result in ("late", "signal")

    app.handler("echo")(_echo)
    async with app, app.worker(concurrency=10):
        await asyncio.gather(*(one(number) for number in range(30)))


async def _echo(value: object) -> object:
    return value


async def test_sleeping(app, step) -> None:
    flow = app.flow("f")
    first = flow.add(step("first"))
    flow.sleep(0.3, after=first).then(step("then"))
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run["step"].result(timeout=10)
        begun = time.monotonic()
        assert (await run.status())["sleep"].state in ("ready", "running", "scheduled")
        assert await run.result(timeout=10) == "then"
        assert time.monotonic() - begun > 0.2


VALUE = {"total": 5, "name": "abc", "tags": ["x", "y"], "deep": {"list": [1, {"a": None}]}, "flag": True}


@pytest.mark.parametrize(
    ("test", "met"),
    [
        (("total", "==", 5), True),
        (("total", "==", 5.0), True),
        (("total", "!=", 5), False),
        (("total", ">", 4), True),
        (("total", ">=", 6), False),
        (("total", "<", "9"), False),
        (("name", "<", "abd"), True),
        (("name", "contains", "b"), True),
        (("tags", "contains", "x"), True),
        (("tags", "contains", "z"), False),
        (("deep", "contains", "list"), True),
        (("total", "in", [1, 5]), True),
        (("total", "not in", (1, 5)), False),
        (("name", "in", ["b"]), False),
        (("missing", "==", None), True),
        (("missing", "!=", 1), True),
        (("missing", ">", 1), False),
        (("deep.list.1.a", "==", None), True),
        ((["deep", "list", 0], "<=", 1), True),
        (("flag", "==", True), True),
        ((VALUE,), True),
        (("", "==", 5), False),
    ],
)
async def test_conditions_on_results(app, give, step, states, test, met) -> None:
    flow = app.flow("f")
    value = flow.add(give.job(VALUE), name="value")
    flow.add(step("then"), after=value.when(*test), name="then")
    async with app, app.worker(concurrency=2):
        found = await states(await flow.dispatch())
    assert found["then"] == ("succeeded" if met else "skipped")


async def test_a_condition_on_a_result_needs_success(app, step, states) -> None:
    flow = app.flow("f")
    value = flow.add(step("value", fail=True), name="value")
    flow.add(step("then"), after=value.when("a", "==", None), name="then")
    async with app, app.worker(concurrency=2):
        assert (await states(await flow.dispatch()))["then"] == "skipped"


async def test_several_conditions_on_one_result(app, give, step, states) -> None:
    from flowrun import any_of

    flow = app.flow("f")
    value = flow.add(give.job(5), name="value")
    flow.add(step("both"), after=[value.when("", ">", 1), value.when("", "<", 3)], name="both")
    flow.add(step("one"), after=any_of(value.when("", "<", 1), value.when("", ">", 3)), name="one")
    async with app, app.worker(concurrency=2):
        found = await states(await flow.dispatch())
    assert (found["both"], found["one"]) == ("skipped", "succeeded")


async def test_conditions_that_cannot_be(app, give) -> None:
    flow = app.flow("f")
    value = flow.add(give.job(5))
    with pytest.raises(InvalidFlow, match="compares by one of"):
        value.when("a", "=~", 1)
    with pytest.raises(InvalidFlow, match="takes a list"):
        value.when("a", "in", 1)
    flow.add(give.job(1), after=value.when("a", "==", float("nan")))
    async with app:
        with pytest.raises(InvalidFlow, match="cannot be stored"):
            await flow.dispatch()
