"""Flows that grow while they run: from inside a handler, over a result, from outside."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import FlowrunError, InvalidFlow, Job, JobFailed, NotFound, backoff


@pytest.fixture
def grows(app, ran):
    """``grows(["a", "b"])``: a job that spawns these steps."""

    @app.handler(attempts=2)
    async def grow(job: Job, names: list[str], detached: bool = False, fail: int = 0, broken: str = "") -> int:
        for name in names:
            job.spawn(app.job("step", {"name": name, "fail": name == broken}), name=name, detached=detached)
        if job.attempt <= fail:
            raise ValueError("not yet")
        return len(names)

    return grow


async def test_what_a_handler_dispatches_is_there_when_it_has_succeeded(app, ran, connection, until) -> None:
    gate = asyncio.Event()
    runs = []

    @app.handler(attempts=2)
    async def parent(job: Job, fail: bool) -> None:
        runs.append(await app.job("step", {"name": f"attempt {job.attempt}"}).dispatch())
        runs.append(await app.job("step", {"name": f"now {job.attempt}"}).dispatch(now=True))
        if fail and job.attempt == 1:
            raise ValueError("again")
        await gate.wait()

    async with app, app.worker(concurrency=4):
        run = await parent.dispatch(fail=True)
        await until(lambda: "now 2" in ran)
        assert sorted(ran) == ["now 1", "now 2"]
        with pytest.raises(NotFound):
            await runs[2].status()
        gate.set()
        await run.result(timeout=10)
        assert await runs[2].result(timeout=10) == "attempt 2"
    assert sorted(ran) == ["attempt 2", "now 1", "now 2"]
    stored = await connection.fetch(
        "select args ->> 'name' from flowrun.job_status join flowrun.jobs using (id) where dispatched_by = $1", run.id
    )
    assert sorted(row[0] for row in stored) == ["attempt 2", "now 1", "now 2"]


async def test_a_flow_and_many_jobs_dispatched_by_a_handler(app, ran) -> None:
    @app.handler
    async def parent() -> list[str]:
        flow = app.chain(app.job("step", {"name": "one"}), app.job("step", {"name": "two"}))
        first = await flow.dispatch()
        more = await app.dispatch_many([app.job("step", {"name": f"m{n}"}) for n in range(3)])
        return [str(first.id), *(str(run.id) for run in more)]

    async with app, app.worker(concurrency=4):
        run = await parent.dispatch()
        flow_id, *ids = await run.result(timeout=10)
        flow = await app.get_flow(flow_id)
        assert (await flow.wait(timeout=10)).state == "succeeded"
        assert (await flow.status()).dispatched_by == run.id
        for id in ids:
            await (await app.get_job(id)).result(timeout=10)
    assert sorted(ran) == ["m0", "m1", "m2", "one", "two"]


async def test_waiting_for_what_is_kept_back_raises_at_once(app, ran) -> None:
    @app.handler(attempts=1)
    async def parent() -> str:
        run = await app.job("step").dispatch()
        with pytest.raises(FlowrunError, match="dispatch\\(now=True\\)"):
            await run.result()
        flow = await app.chain(app.job("step")).dispatch()
        with pytest.raises(FlowrunError, match="the handler cannot wait for it"):
            await flow.wait()
        at_once = await app.job("step", {"name": "now"}).dispatch(now=True)
        return await at_once.result(timeout=10)

    async with app, app.worker(concurrency=4):
        assert await (await parent.dispatch()).result(timeout=10) == "now"


async def test_what_a_handler_left_behind_dispatches_for_itself(app, ran, until) -> None:
    left = []
    released = asyncio.Event()

    @app.handler
    async def parent() -> None:
        async def later() -> None:
            await released.wait()
            await app.job("step", {"name": "late"}).dispatch()

        left.append(asyncio.create_task(later()))

    async with app, app.worker(concurrency=2):
        await (await parent.dispatch()).result(timeout=10)
        released.set()
        await left[0]
        await until(lambda: ran == ["late"])


async def test_spawned_nodes_come_between_a_job_and_its_children(app, step, ran, grows, states) -> None:
    flow = app.flow("f")
    grow = flow.add(grows.job(["a", "b"]), name="grow")
    flow.add(step("child"), after=grow, name="child")
    flow.add(step("any"), after=grow.finished, name="any")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await states(run)
        assert set(found.values()) == {"succeeded"}
        assert set(found) == {"grow", "a", "b", "child", "any"}
        assert await run["a"].result(timeout=5) == "a"
    assert set(ran[:2]) == {"a", "b"}
    assert set(ran[2:]) == {"child", "any"}


async def test_a_failed_attempt_spawns_nothing(app, grows, ran, states) -> None:
    flow = app.flow("f")
    flow.add(grows.job(["a"], fail=1).options(backoff=backoff.constant(0.0)), name="grow")
    async with app, app.worker(concurrency=4):
        assert await states(await flow.dispatch()) == {"grow": "succeeded", "a": "succeeded"}
    assert ran == ["a"]


async def test_a_spawned_node_that_fails(app, step, grows, states) -> None:
    flow = app.flow("f")
    grow = flow.add(grows.job(["a", "b"], broken="a"), name="grow")
    flow.add(step("child"), after=grow, name="child")
    flow.add(step("any"), after=grow.finished, name="any")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        found = await states(run)
        assert found == {"grow": "succeeded", "a": "failed", "b": "succeeded", "child": "skipped", "any": "succeeded"}
        assert (await run.status()).state == "failed"


async def test_detached_nodes_are_waited_for_by_the_end_alone(app, step, ran, grows, states) -> None:
    blocked = asyncio.Event()

    @app.handler
    async def slow() -> None:
        await blocked.wait()

    @app.handler
    async def begin(job: Job) -> None:
        job.spawn(slow.job(), detached=True)

    flow = app.flow("f")
    first = flow.add(begin.job())
    child = flow.add(step("child"), after=first, name="child")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        assert await run[child.name].result(timeout=10) == "child"
        assert (await run.status()).state == "running"
        blocked.set()
        assert await states(run) == {"begin": "succeeded", "slow": "succeeded", "child": "succeeded"}


async def test_spawned_nodes_wait_for_each_other_and_for_stored_ones(app, step, ran, states) -> None:
    @app.handler
    async def begin(job: Job) -> None:
        a = job.spawn(app.job("step", {"name": "a"}), name="a", after="other")
        job.spawn(app.job("step", {"name": "b", "given": a.result}), name="b", after=[a, "done"])

    flow = app.flow("f")
    done = flow.add(step("done"), name="done")
    flow.add(begin.job(), after=done, name="begin")
    flow.add(step("other"), after=done, name="other")
    async with app, app.worker(concurrency=1):
        assert set((await states(await flow.dispatch())).values()) == {"succeeded"}
    assert ran.index("other") < ran.index("a") < ran.index("b")


async def test_spawning_again_and_again(app) -> None:
    @app.handler
    async def crawl(job: Job, depth: int) -> None:
        for _ in range(2 if depth else 0):
            job.spawn(crawl.job(depth - 1))

    flow = app.flow("f")
    root = flow.add(crawl.job(5))
    flow.add(app.job("last"), after=root, name="last")
    done = []
    app.handler("last")(lambda: done.append(True))
    async with app, app.worker(concurrency=10):
        status = await (await flow.dispatch()).wait(timeout=20)
    assert status.state == "succeeded"
    assert len(status.nodes) == 2**6 - 1 + 1
    assert done == [True]


async def test_names_of_spawned_nodes(app, step, states) -> None:
    @app.handler(attempts=1)
    async def begin(job: Job, name: str | None = None) -> None:
        job.spawn(app.job("step", {"name": "x"}), name=name)

    flow = app.flow("f")
    flow.add(step("step"))
    flow.add(begin.job(), name="one")
    async with app, app.worker(concurrency=2):
        assert set(await states(await flow.dispatch())) == {"step", "one", "step-2"}
        flow = app.flow("g")
        flow.add(step("taken"), name="taken")
        flow.add(begin.job("taken"), name="one")
        run = await flow.dispatch()
        assert (await states(run))["one"] == "failed"
        assert "a node named 'taken'" in ((await run.status())["one"].error or "")


async def test_what_cannot_be_spawned(app, ran) -> None:
    @app.handler(attempts=1)
    async def alone(job: Job) -> None:
        job.spawn(app.job("step"))

    @app.handler(attempts=1)
    async def unknown(job: Job) -> None:
        job.spawn(app.job("step"), after="nobody")

    async with app, app.worker(concurrency=2):
        with pytest.raises(JobFailed, match="not a node of a flow"):
            await (await alone.dispatch()).result(timeout=10)
        flow = app.flow("f")
        flow.add(unknown.job(), name="u")
        run = await flow.dispatch()
        await run.wait(timeout=10)
        with pytest.raises(JobFailed, match="unknown node 'nobody'"):
            await run["u"].result(timeout=10)


async def test_growth_inside_an_inner_flow(app, step, grows, states) -> None:
    inner = app.flow("inner")
    inner.add(grows.job(["a"]), name="grow")
    flow = app.flow("f")
    node = flow.add(inner)
    flow.add(step("after"), after=node, name="after")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await states(run) == {"inner/grow": "succeeded", "inner/a": "succeeded", "after": "succeeded"}


async def test_adding_to_an_open_flow(app, step, ran, states) -> None:
    flow = app.flow("f")
    first = flow.add(step("first"), name="first")
    flow.wait_for("go", after=first)
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await run["first"].result(timeout=10)
        early = await run.add(step("early"), after="first", name="early")
        free = await run.add(step("free"))
        late = await run.add(step("late"), after=["go", "early"])
        assert (await early.result(timeout=10), await free.result(timeout=10)) == ("early", "free")
        assert (await late.status()).state == "waiting"
        await run.signal("go")
        assert await late.result(timeout=10) == "late"
        assert (await run.wait(timeout=10)).state == "succeeded"
        with pytest.raises(InvalidFlow, match="has ended"):
            await run.add(step("too late"))


async def test_adding_what_does_not_fit(app, step) -> None:
    flow = app.flow("f")
    flow.wait_for("go", name="gate")
    async with app:
        run = await flow.dispatch()
        with pytest.raises(InvalidFlow, match="unknown node 'nobody'; there are gate"):
            await run.add(step("x"), after="nobody")
        with pytest.raises(InvalidFlow, match="a node named 'gate'"):
            await run.add(step("x"), name="gate")


async def test_a_node_added_while_its_parent_ends_is_never_lost(app, ran, states) -> None:
    """The parent's settle may have read its edges before the new one was written."""

    @app.handler("quick")
    async def quick() -> None:
        await asyncio.sleep(0)

    async def one(number: int) -> None:
        flow = app.flow(f"f{number}")
        flow.add(quick.job(), name="quick")
        run = await flow.dispatch()
        await asyncio.sleep(number % 8 * 0.002)
        try:
            added = await run.add(app.job("step", {"name": str(number)}), after="quick")
        except InvalidFlow:
            assert (await run.wait(timeout=10)).state == "succeeded"
            return
        assert await added.result(timeout=10) == str(number)
        assert (await run.wait(timeout=10)).state == "succeeded"

    async with app, app.worker(concurrency=20):
        for start in range(0, 120, 24):
            await asyncio.gather(*(one(number) for number in range(start, start + 24)))
    assert len(ran) == len(set(ran))
