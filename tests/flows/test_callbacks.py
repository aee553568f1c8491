"""What runs when a flow ends."""

from __future__ import annotations

import pytest

from flowrun import FlowFailed


def with_callbacks(flow, step, prefix: str = "") -> None:
    flow.on_success(step(f"{prefix}success"), name="success")
    flow.on_failure(step(f"{prefix}failure"), name="failure")
    flow.on_finish(step(f"{prefix}finish"), name="finish")


async def ended(run, *names: str) -> dict[str, str]:
    return {name: (await run[name].wait(timeout=10)).state for name in names}


@pytest.mark.parametrize("fails", [False, True])
async def test_each_runs_once_and_last(app, step, ran, connection, fails: bool) -> None:
    flow = app.flow("f")
    flow.chain(step("a"), step("b", fail=fails))
    with_callbacks(flow, step)
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run.wait(timeout=10)).state == ("failed" if fails else "succeeded")
        found = await ended(run, "success", "failure", "finish")
        flow_ended = (await run.status()).finished_at
        status = await run.status()
    assert found == {
        "success": "skipped" if fails else "succeeded",
        "failure": "succeeded" if fails else "skipped",
        "finish": "succeeded",
    }
    assert ran[:2] == ["a", "b"]
    assert sorted(ran[2:]) == (["failure", "finish"] if fails else ["finish", "success"])
    assert status["finish"].started_at >= flow_ended


async def test_an_optional_failure_is_a_success(app, step, ran) -> None:
    flow = app.flow("f")
    flow.add(step("a", fail=True, optional=True))
    with_callbacks(flow, step)
    async with app.worker(concurrency=4):
        found = await ended(await flow.dispatch(), "success", "failure", "finish")
    assert found == {"success": "succeeded", "failure": "skipped", "finish": "succeeded"}


async def test_of_an_empty_flow(app, step, ran) -> None:
    flow = app.flow("f")
    with_callbacks(flow, step)
    async with app.worker(concurrency=4):
        found = await ended(await flow.dispatch(), "success", "failure", "finish")
    assert found == {"success": "succeeded", "failure": "skipped", "finish": "succeeded"}


async def test_several_of_a_kind(app, step, ran) -> None:
    flow = app.flow("f")
    flow.add(step("a"))
    nodes = [flow.on_success(step(f"cb{n}")) for n in range(3)]
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        await ended(run, *(node.name for node in nodes))
    assert sorted(ran) == ["a", "cb0", "cb1", "cb2"]


async def test_of_a_flow_inside(app, step, ran) -> None:
    flow, inner = app.flow("outer"), app.flow("inner")
    inner.add(step("x", fail=True))
    with_callbacks(inner, step, "inner ")
    with_callbacks(flow, step, "outer ")
    flow.add(step("sorry"), after=flow.add(inner).failed)
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await ended(run, *(f"{p}{n}" for p in ("", "inner/") for n in ("success", "failure", "finish")))
    assert [found["inner/success"], found["inner/failure"], found["inner/finish"]] == [
        "skipped", "succeeded", "succeeded",
    ]  # fmt: skip
    assert [found["success"], found["failure"], found["finish"]] == ["skipped", "succeeded", "succeeded"]
    assert len(ran) == len(set(ran)) == 6


async def test_a_callback_that_fails_changes_nothing_about_the_flow(app, step, ran, connection) -> None:
    flow = app.flow("f")
    flow.add(step("a", fail=True), name="a")
    flow.on_failure(step("callback", fail=True), name="callback")
    good = app.flow("good")
    good.add(step("a"), name="a")
    good.on_success(step("callback", fail=True), name="callback")
    async with app.worker(concurrency=4):
        run, fine = await flow.dispatch(), await good.dispatch()
        assert await ended(run, "callback") == await ended(fine, "callback") == {"callback": "failed"}
        with pytest.raises(FlowFailed) as failure:
            await run.result(timeout=10)
        assert failure.value.failed == ("a",)
        assert await fine.result(timeout=10) == "a"
        assert (await fine.status()).state == "succeeded"


async def test_a_callback_is_tried_again(app, ran, step) -> None:
    runs = []

    @app.handler(attempts=3, backoff=lambda attempt: 0.0)
    async def tell() -> str:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError
        return "told"

    flow = app.flow("f")
    flow.add(step("a"))
    flow.on_finish(tell.job())
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run["tell"].result(timeout=10) == "told"
    assert len(runs) == 3


async def test_a_callback_takes_results(app, step) -> None:
    seen = []

    @app.handler
    async def tell(what: str) -> None:
        seen.append(what)

    flow = app.flow("f")
    a = flow.add(step("a"))
    flow.add(step("b"), after=a)
    flow.on_success(tell.job(what=a.result), name="tell")
    async with app.worker(concurrency=4):
        await ended(await flow.dispatch(), "tell")
    assert seen == ["a"]


async def test_on_success_of_an_optional_flow_that_failed(app, step, ran) -> None:
    flow, inner = app.flow("outer"), app.flow("inner")
    inner.add(step("x", fail=True))
    with_callbacks(inner, step)
    flow.add(inner, optional=True)
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await ended(run, "inner/success", "inner/failure", "inner/finish")
    assert list(found.values()) == ["skipped", "succeeded", "succeeded"]
