"""What people do to flows by hand: retry, resolve, skip; each kept with who and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flowrun import FlowFailed, Job, JobFailed, NotFound, NotPossible, any_of, backoff


@pytest.fixture
def broken() -> set[str]:
    """Steps of type ``work`` that fail, for now."""
    return set()


@pytest.fixture
def work(app, broken) -> Callable[..., object]:
    ran: list[str] = []

    @app.handler(attempts=1)
    async def work(name: str, given: object = None) -> str:
        ran.append(name)
        if name in broken:
            raise ValueError(f"{name} broke")
        return f"{name}({given})" if given is not None else name

    work.ran = ran
    return work


@pytest.fixture
def settled() -> Callable[..., Awaitable[dict[str, str]]]:
    """The states of all jobs once the flow, and its callbacks, have ended."""

    async def of(run, *callbacks: str) -> dict[str, str]:
        await run.wait(timeout=15)
        for name in callbacks:
            await run[name].wait(timeout=15)
        return {name: job.state for name, job in (await run.status()).nodes.items()}

    return of


async def test_a_retried_flow_keeps_what_is_done(app, work, broken, settled, connection) -> None:
    broken |= {"b"}
    flow = app.flow("f")
    a = flow.add(work.job("a"), name="a")
    b = flow.add(work.job("b", given=a.result), name="b")
    c = flow.add(work.job("c", given=b.result), name="c")
    flow.add(work.job("sorry"), after=b.failed, name="sorry")
    flow.add(work.job("d"), after=[c, a], name="d")
    flow.on_success(work.job("well"), name="well")
    flow.on_failure(work.job("badly"), name="badly")
    flow.on_finish(work.job("over"), name="over")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        first = await settled(run, "badly", "over", "well")
        assert first == {
            "a": "succeeded", "b": "failed", "c": "skipped", "sorry": "succeeded", "d": "skipped",
            "well": "skipped", "badly": "succeeded", "over": "succeeded",
        }  # fmt: skip
        broken.clear()
        assert await run.retry(actor="ann", reason="fixed") == 1
        assert await run["d"].result(timeout=10) == "d"
        assert await settled(run, "well") == {
            "a": "succeeded", "b": "succeeded", "c": "succeeded", "sorry": "succeeded", "d": "succeeded",
            "well": "succeeded", "badly": "succeeded", "over": "succeeded",
        }  # fmt: skip
        assert (await run.status()).state == "succeeded"
        assert await run["c"].result(timeout=5) == "c(b(a))"
        assert await run.retry() == 0
    assert sorted(work.ran) == ["a", "b", "b", "badly", "c", "d", "over", "sorry", "well"]
    kept = await connection.fetchrow("select verb, actor, reason, flow_id from flowrun.audit")
    assert tuple(kept) == ("retry", "ann", "fixed", run.id)


async def test_joins_fire_again_as_they_should(app, work, broken, settled) -> None:
    broken |= {"b", "c"}
    flow = app.flow("f")
    a, b, c = (flow.add(work.job(name), name=name) for name in "abc")
    flow.add(work.job("any"), after=any_of(a, b), name="any")
    both = flow.add(work.job("both"), after=[b, c], name="both")
    flow.add(work.job("last"), after=[both.finished, a], name="last")
    async with app, app.worker(concurrency=3):
        run = await flow.dispatch()
        found = await settled(run)
        assert (found["any"], found["both"], found["last"]) == ("succeeded", "skipped", "succeeded")
        broken.discard("b")
        assert await run.retry() == 2
        found = await settled(run)
        assert (found["b"], found["c"], found["both"]) == ("succeeded", "failed", "skipped")
        broken.clear()
        assert await run.retry() == 1
        found = await settled(run)
        assert set(found.values()) == {"succeeded"}
    assert work.ran.count("any") == work.ran.count("last") == work.ran.count("both") == 1


async def test_all_attempts_again_and_all_of_them_kept(app, settled) -> None:
    fail = [True]

    @app.handler(attempts=2, backoff=backoff.constant(0.01))
    async def flaky(job: Job) -> tuple[int, int]:
        if fail[0]:
            raise ValueError(f"attempt {job.attempt}")
        return job.attempt, job.attempts

    flow = app.flow("f")
    flow.add(flaky.job(), name="flaky")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await settled(run) == {"flaky": "failed"}
        await run.retry()
        assert await settled(run) == {"flaky": "failed"}
        assert [one.message for one in await run["flaky"].attempts()] == [f"attempt {n}" for n in range(1, 5)]
        fail[0] = False
        await run.retry()
        assert await run["flaky"].result(timeout=10) == (5, 6)


async def test_retrying_with_other_arguments(app, work, broken) -> None:
    broken |= {"b", "alone"}
    flow = app.flow("f")
    a = flow.add(work.job("a"), name="a")
    flow.add(work.job("b", given=a.result), name="b")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        await run.retry(args={"b": {"name": "B", "given": "edited"}})
        assert await run["b"].result(timeout=10) == "B(edited)"
        alone = await work.dispatch("alone")
        with pytest.raises(JobFailed):
            await alone.result(timeout=10)
        await alone.retry(args={"name": "other"})
        assert await alone.result(timeout=10) == "other"
        with pytest.raises(NotPossible, match="has not failed"):
            await alone.retry()
        with pytest.raises(NotPossible, match="has not failed"):
            await run["a"].retry()


async def test_retrying_one_node_while_others_run(app, work, broken, settled) -> None:
    go_on = asyncio.Event()

    @app.handler
    async def slow() -> None:
        await go_on.wait()

    broken |= {"b", "c"}
    flow = app.flow("f")
    first = flow.add(slow.job(), name="slow")
    b = flow.add(work.job("b"), name="b")
    flow.add(work.job("c"), name="c")
    flow.add(work.job("join"), after=[first, b], name="join")
    async with app, app.worker(concurrency=3):
        run = await flow.dispatch()
        await run["join"].wait(timeout=10)
        await run["c"].wait(timeout=10)
        assert (await run.status()).state == "running"
        broken.clear()
        await run["b"].retry()
        await run["b"].wait(timeout=10)
        assert (await run["join"].status()).state == "waiting"
        go_on.set()
        assert await settled(run) == {"slow": "succeeded", "b": "succeeded", "c": "failed", "join": "succeeded"}
        assert (await run.status()).state == "failed"


async def test_retrying_while_the_flow_moves(app, settled) -> None:
    """A retry at any moment: nothing is lost, nothing runs twice, the flow ends."""
    tries: dict[int, int] = {}
    joined: list[int] = []

    @app.handler(attempts=1)
    async def once_broken(number: int) -> None:
        tries[number] = tries.get(number, 0) + 1
        if tries[number] == 1:
            raise ValueError("first")

    @app.handler
    async def quick(number: int) -> None:
        await asyncio.sleep(0.002 * (number % 7))

    @app.handler
    async def join(number: int) -> None:
        joined.append(number)

    async def one(number: int) -> None:
        flow = app.flow("f")
        bad = flow.add(once_broken.job(number), name="bad")
        others = [flow.add(quick.job(number + n), name=f"q{n}") for n in range(3)]
        flow.add(join.job(number), after=[bad, *others], name="join")
        run = await flow.dispatch()
        await run["bad"].wait(timeout=20)
        await asyncio.sleep(0.001 * (number % 11))
        await run["bad"].retry()
        status = await run.wait(timeout=20)
        assert status.state == "succeeded", status

    async with app, app.worker(concurrency=20):
        for start in range(0, 60, 20):
            await asyncio.gather(*(one(number) for number in range(start, start + 20)))
    assert sorted(joined) == list(range(60))


async def test_a_cancelled_flow_runs_again(app, work, settled) -> None:
    flow = app.flow("f")
    a = flow.add(work.job("a"), name="a")
    gate = flow.wait_for("go", after=a, name="gate")
    flow.add(work.job("b"), after=gate, name="b")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run["a"].result(timeout=10)
        await run.cancel()
        assert await settled(run) == {"a": "succeeded", "gate": "cancelled", "b": "cancelled"}
        assert await run.retry() == 2
        await run.signal("go")
        assert await settled(run) == {"a": "succeeded", "gate": "succeeded", "b": "succeeded"}
    assert work.ran == ["a", "b"]


async def test_a_compensated_flow_cannot_be_retried(app, work, broken) -> None:
    broken |= {"b"}
    flow = app.flow("f")
    a = flow.add(work.job("a"), name="a", compensate=work.job("undo"))
    flow.add(work.job("b"), after=a, name="b")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        with pytest.raises(NotPossible, match="was compensated"):
            await run.retry()


async def test_a_failed_node_is_resolved(app, work, broken, settled, connection) -> None:
    broken |= {"b"}
    flow = app.flow("f")
    b = flow.add(work.job("b"), name="b")
    flow.add(work.job("c", given=b.result), name="c")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        with pytest.raises(FlowFailed, match="b broke"):
            await run.result(timeout=10)
        await run.resolve("b", "by hand", actor="ann", reason="paid in cash")
        assert await settled(run) == {"b": "succeeded", "c": "succeeded"}
        assert await run.result(timeout=10) == "c(by hand)"
        with pytest.raises(NotPossible, match="has succeeded already"):
            await run.resolve("b", "again")
        with pytest.raises(NotFound):
            await run.resolve("nobody", 1)
    row = await connection.fetchrow("select verb, actor, reason, job_id from flowrun.audit")
    assert tuple(row) == ("resolve", "ann", "paid in cash", run["b"].id)


async def test_what_waits_or_runs_is_resolved(app, work, settled, until) -> None:
    begun = asyncio.Event()

    @app.handler
    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    flow = app.flow("f")
    running = flow.add(hang.job(), name="running")
    later = flow.add(work.job("later").options(delay=60.0), name="later")
    gate = flow.wait_for("go", name="gate")
    flow.add(work.job("end", given=[running.result, later.result, gate.result]), name="end")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await begun.wait()
        for number, name in enumerate(["running", "later", "gate"]):
            await run.resolve(name, number)
        assert await run["end"].result(timeout=10) == "end([0, 1, 2])"
        assert set((await settled(run)).values()) == {"succeeded"}


async def test_a_node_is_skipped(app, work, broken, settled) -> None:
    broken |= {"b"}
    flow = app.flow("f")
    b = flow.add(work.job("b"), name="b")
    flow.add(work.job("c"), after=b, name="c")
    flow.add(work.job("d"), after=b.finished, name="d")
    waits = app.flow("g")
    gate = waits.wait_for("never", name="gate")
    waits.add(work.job("after"), after=gate.finished, name="after")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await settled(run) == {"b": "failed", "c": "skipped", "d": "succeeded"}
        await run.skip("b", actor="ann", reason="not needed")
        assert await settled(run) == {"b": "skipped", "c": "skipped", "d": "succeeded"}
        status = await run.status()
        assert (status.state, status["b"].error) == ("succeeded", "by ann: not needed")
        other = await waits.dispatch()
        await other.skip("gate")
        assert await settled(other) == {"gate": "skipped", "after": "succeeded"}
        with pytest.raises(NotPossible, match="has skipped already"):
            await other.skip("gate")


async def test_an_inner_flow_is_not_decided_by_hand(app, work, broken) -> None:
    broken |= {"b"}
    inner = app.flow("inner")
    inner.add(work.job("b"), name="b")
    flow = app.flow("f")
    node = flow.add(inner)
    flow.add(work.job("after"), after=node, name="after")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=10)
        with pytest.raises(NotPossible, match="resolve or skip the nodes in it"):
            await run.resolve("inner", 1)
        await run.resolve("inner/b", 1)
        assert await run.result(timeout=10) == "after"


async def test_retrying_an_inner_flow(app, work, broken, settled) -> None:
    broken |= {"b", "beside"}
    inner = app.flow("inner")
    b = inner.add(work.job("b"), name="b")
    inner.add(work.job("c"), after=b, name="c")
    flow = app.flow("f")
    node = flow.add(inner)
    flow.add(work.job("after"), after=node, name="after")
    flow.add(work.job("beside"), name="beside")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await settled(run)
        broken.clear()
        inside = await app.get_flow(run["inner"].id)
        assert await inside.retry() == 1
        assert await settled(run) == {
            "inner/b": "succeeded", "inner/c": "succeeded", "after": "succeeded", "beside": "failed",
        }  # fmt: skip
