"""What a handler is told of the nodes it waited for."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from flowrun import Discard, Flowrun, Job, NotFound, Parent, any_of, at_least, backoff


@pytest.fixture
def seen(app) -> dict[str, list[dict[str, Parent]]]:
    """By node: the parents that ``look`` was given, attempt by attempt. It fails as often as it is told to."""
    found: dict[str, list[dict[str, Parent]]] = {}

    @app.handler(attempts=5, backoff=backoff.constant(0.0))
    async def look(job: Job, failures: int = 0, result: Any = None, given: Any = None) -> Any:
        found.setdefault(job.name, []).append(dict(job.parents))
        if job.attempt <= failures:
            raise ValueError("again")
        return result

    @app.handler
    async def end(how: str = "well", result: Any = None) -> Any:
        if how == "badly":
            raise Discard("it broke")
        return result

    return found


def outcomes(parents: dict[str, Parent]) -> dict[str, str | None]:
    return {name: parent.outcome for name, parent in parents.items()}


async def run_to_end(app, flow, concurrency: int = 4):
    async with app.worker(concurrency=concurrency):
        run = await flow.dispatch()
        await run.wait(timeout=20)
    return run


async def test_outcome_result_and_error(app, seen) -> None:
    flow = app.flow("f")
    good = flow.add(app.job("end", {"result": {"n": [1]}}), name="good")
    bad = flow.add(app.job("end", {"how": "badly"}), name="bad", optional=True)
    skipped = flow.add(app.job("end"), after=good.failed, name="skipped")
    none = flow.add(app.job("end"), name="none")
    flow.add(app.job("look"), after=[good, bad, skipped.finished, none], name="here")
    run = await run_to_end(app, flow)
    (parents,) = seen["here"]
    assert parents["good"] == Parent("good", "succeeded", {"n": [1]})
    assert parents["bad"] == Parent("bad", "failed", None, "it broke", "flowrun.errors.Discard")
    assert parents["none"] == Parent("none", "succeeded", None)
    assert parents["skipped"].outcome == "skipped"
    assert "'good'" in parents["skipped"].error or "good" in parents["skipped"].error
    assert parents["skipped"].cause == run["good"].id
    assert set(parents) == {"good", "bad", "skipped", "none"}


async def test_in_a_thread_and_without_a_flow(app) -> None:
    @app.handler
    async def first() -> int:
        return 7

    @app.handler
    def second(job: Job) -> int:
        return job.parents["first"].result + 1

    @app.handler
    async def alone(job: Job) -> list[str]:
        return list(job.parents)

    async with app.worker(concurrency=1):
        assert await (await app.chain(first.job(), second.job()).dispatch()).result(timeout=10) == 8
        assert await (await alone.dispatch()).result(timeout=10) == []


async def test_what_it_is_like_to_ask(app) -> None:
    messages: list[Any] = []

    @app.handler
    async def end() -> dict[str, int]:
        return {"n": 1}

    @app.handler
    async def ask(job: Job) -> None:
        parents = job.parents
        for name in ("c", "flow/a"):
            with pytest.raises(NotFound) as error:
                parents[name]
            messages.append(str(error.value))
        assert isinstance(parents, dict) is False
        assert (list(parents), len(parents), "a" in parents, "c" in parents) == (["a", "b"], 2, True, False)
        assert parents.get("c") is None
        assert parents.get("a") is parents["a"]
        assert repr(parents) == "<Parents a: succeeded, b: succeeded>"
        with pytest.raises(TypeError):
            parents["a"] = None  # type: ignore[index]
        with pytest.raises(AttributeError):
            parents["a"].result = None  # type: ignore[misc]

    flow = app.flow("flow")
    a, b = flow.add(end.job(), name="a"), flow.add(end.job(), name="b")
    flow.add(ask.job(), after=[a, b])
    async with app.worker(concurrency=2):
        await (await flow.dispatch()).result(timeout=10)
    assert messages == [f"the job has no parent {name!r}; its parents are a, b" for name in ("c", "flow/a")]


def test_a_job_made_by_hand_has_those_it_is_given() -> None:
    with pytest.raises(NotFound, match="it has none"):
        Job(id=uuid4(), type="x").parents["a"]
    job = Job(id=uuid4(), type="x", parents={"a": Parent("a", "succeeded", 5)})
    assert job.parents["a"].result == 5


async def test_what_ends_later_has_not_ended_in_any_attempt(app, seen, until) -> None:
    release, started = asyncio.Event(), asyncio.Event()

    @app.handler
    async def late() -> str:
        await release.wait()
        return "late"

    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def choose(job: Job) -> dict[str, str | None]:
        started.set()
        if job.attempt == 1:
            release.set()
            await until(lambda: ended())
            raise ValueError("again")
        assert (job.parents["late"].result, job.parents["late"].error) == (None, None)
        return outcomes(dict(job.parents))

    async def ended() -> bool:
        return (await run["late"].status()).state == "succeeded"

    flow = app.flow("f")
    early = flow.add(app.job("end"), name="early")
    slow = flow.add(late.job(), name="late")
    flow.add(choose.job(), after=any_of(early, slow))
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        await started.wait()
        assert await run["choose"].result(timeout=20) == {"early": "succeeded", "late": None}


async def test_joins_are_seen_through(app, seen) -> None:
    flow = app.flow("f")
    a, b, c, d = (flow.add(app.job("end", {"result": name}), name=name) for name in "abcd")
    flow.add(app.job("look"), after=[a, at_least(2, b.finished, c.finished), any_of(d, "a")], name="here")
    run = await run_to_end(app, flow)
    (parents,) = seen["here"]
    assert set(parents) == {"a", "b", "c", "d"}
    assert parents["a"].result == "a"
    assert run["a"].type == "end"


@pytest.mark.parametrize("depth", [1, 3])
async def test_an_inner_flow_begins_behind_what_the_flow_as_a_node_waits_for(app, seen, depth) -> None:
    outer = flow = app.flow("outer")
    pay = outer.add(app.job("end", {"result": 5}), name="pay")
    other = outer.add(app.job("end", {"how": "badly"}), name="other", optional=True)
    for _ in range(depth):
        inner = app.flow("inner")
        flow.add(inner, after=[pay, other] if flow is outer else None)
        flow = inner
    first = inner.add(app.job("look"), name="first")
    inner.add(app.job("look", {"given": pay.result}), name="second", after=first)
    prefix = "inner/" * depth
    await run_to_end(app, outer)
    (parents,) = seen[f"{prefix}first"]
    assert {name: parent.result for name, parent in parents.items()} == {"pay": 5, "other": None}
    (parents,) = seen[f"{prefix}second"]
    assert outcomes(parents) == {"first": "succeeded", "pay": "succeeded"}


async def test_names_are_those_of_the_flow_and_the_stored_ones(app) -> None:
    found: list[Any] = []

    @app.handler
    async def end(result: str) -> str:
        return result

    @app.handler
    async def ask(job: Job, pay: str) -> None:
        names = ("x/pay", "inner/x/pay", "pay", "other")
        found.append([job.parents[name].result if name in job.parents else "-" for name in names])
        found.append({name: parent.name for name, parent in job.parents.items()})

    outer, inner = app.flow("outer"), app.flow("inner")
    above = outer.add(end.job("above"), name="pay")
    outer.add(inner)
    x = inner.add(end.job("inside"), name="x/pay")
    inner.add(ask.job(above.result), after=x, name="y/z")
    async with app.worker(concurrency=2):
        await (await outer.dispatch()).wait(timeout=10)
    assert found == [["inside", "inside", "above", "-"], {"x/pay": "x/pay", "pay": "pay"}]


async def test_the_nearer_one_has_the_name(app) -> None:
    @app.handler
    async def end(result: str) -> str:
        return result

    @app.handler
    async def ask(job: Job, pay: str) -> list[str]:
        return [job.parents["pay"].result, *job.parents]

    outer, inner = app.flow("outer"), app.flow("inner")
    above = outer.add(end.job("above"), name="pay")
    outer.add(inner)
    x = inner.add(end.job("inside"), name="pay")
    inner.add(ask.job(above.result), after=x)
    async with app.worker(concurrency=2):
        run = await outer.dispatch()
        assert await run.result(timeout=10) == ["inside", "pay"]


async def test_a_flow_as_a_parent(app, seen) -> None:
    outer = app.flow("outer")
    good, bad = app.flow("any"), app.flow("any")
    good.add(app.job("end", {"result": "out"}))
    inmost = app.flow("inmost")
    inmost.add(app.job("end", {"how": "badly"}))
    bad.add(inmost)
    nodes = [outer.add(good, name="good"), outer.add(bad, name="bad")]
    outer.add(app.job("look"), after=[node.finished for node in nodes], name="here")
    await run_to_end(app, outer)
    (parents,) = seen["here"]
    assert parents["good"] == Parent("good", "succeeded", "out")
    assert parents["bad"] == Parent("bad", "failed", None, "it broke", "flowrun.errors.Discard")


@pytest.mark.parametrize("nested", [False, True])
async def test_a_callback_sees_the_flow(app, seen, nested) -> None:
    flow = app.flow("order")
    first = flow.add(app.job("end", {"how": "badly"}), name="first")
    flow.add(app.job("end"), after=first)
    flow.on_failure(app.job("look"), name="sorry")
    top = flow
    if nested:
        top = app.flow("outer")
        top.add(flow, name="step one")
    name = "step one/sorry" if nested else "sorry"
    async with app.worker(concurrency=4):
        run = await top.dispatch()
        await run[name].wait(timeout=20)  # it starts when the flow has ended
    (parents,) = seen[name]
    assert list(parents) == ["order"]
    assert (parents["order"].outcome, parents["order"].error) == ("failed", "it broke")


async def test_from_a_program_that_does_not_know_the_handlers(app, seen, dsn) -> None:
    elsewhere = Flowrun(dsn)
    flow = elsewhere.flow("f")
    a = flow.add(elsewhere.job("end", {"result": 1}), name="a")
    flow.add(elsewhere.job("look"), after=a, name="here")
    async with elsewhere, app.worker(concurrency=1):
        await (await flow.dispatch()).wait(timeout=10)
    assert seen["here"] == [{"a": Parent("a", "succeeded", 1)}]


async def test_from_a_program_whose_handler_does_not_ask(app, seen, dsn, connection) -> None:
    """Nothing is recorded; the worker finds the parents by the edges."""
    elsewhere = Flowrun(dsn)
    elsewhere.handler("look")(lambda given=None: None)
    elsewhere.handler("end")(lambda how="", result=None: None)
    outer, inner = elsewhere.flow("outer"), elsewhere.flow("inner")
    a, b, c = (outer.add(elsewhere.job("end", {"result": name}), name=name) for name in "abc")
    node = outer.add(inner, after=[a, at_least(1, b, c)])
    first = inner.add(elsewhere.job("look"), name="first")
    inner.add(elsewhere.job("look", {"given": a.result}), name="second", after=first.finished)
    outer.add(elsewhere.job("look"), after=[node, any_of(a, b)], name="last")
    outer.on_finish(elsewhere.job("look"), name="callback")
    async with elsewhere, app.worker(concurrency=1):
        run = await outer.dispatch()
        assert (
            await connection.fetchval("select count(*) from flowrun.jobs where parents is not null and kind = 0") == 0
        )
        await run["callback"].wait(timeout=20)
    named = {name: set(parents) for name, (parents,) in seen.items()}
    assert named == {
        "inner/first": {"a", "b", "c"}, "inner/second": {"a", "b", "c", "first"}, "last": {"inner", "a", "b"},
        "callback": {"outer"},
    }  # fmt: skip
    assert seen["inner/first"][0]["a"].result == "a"


async def test_who_does_not_ask_records_nothing(app, seen, connection) -> None:
    flow = app.flow("f")
    a = flow.add(app.job("end"), name="a")
    b = flow.add(app.job("end"), after=a, name="b")
    flow.add(app.job("look"), after=b, name="c")
    flow.add(app.job("look"), name="d")
    async with app:
        run = await flow.dispatch()
    recorded = dict(await connection.fetch("select name, parents from flowrun.jobs where flow_id is not null"))
    assert recorded == {"a": None, "b": None, "c": [run["b"].id], "d": []}


@pytest.mark.parametrize("width", [20, 600])
async def test_out_and_in_again(app, seen, width) -> None:
    """Below and above the number of nodes from which a flow is copied in."""
    flow = app.flow("f")
    first = flow.add(app.job("end", {"result": "x" * 1000}), name="first")
    middle = [flow.add(app.job("look", {"result": n}), after=first, name=f"m{n}") for n in range(width)]
    flow.add(app.job("look"), after=middle, name="last")
    await run_to_end(app, flow, concurrency=20)
    (parents,) = seen["last"]
    assert {name: parent.result for name, parent in parents.items()} == {f"m{n}": n for n in range(width)}
    assert all(seen[f"m{n}"] == [{"first": Parent("first", "succeeded", "x" * 1000)}] for n in range(width))


async def test_every_attempt_has_them(app, seen) -> None:
    flow = app.flow("f")
    a = flow.add(app.job("end", {"result": 1}), name="a")
    flow.add(app.job("look", {"failures": 2}), after=a, name="here")
    await run_to_end(app, flow)
    assert seen["here"] == [{"a": Parent("a", "succeeded", 1)}] * 3
