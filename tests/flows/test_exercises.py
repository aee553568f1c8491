"""The exercises of the documents that asked for flowrun, each as its reader would write it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from flowrun import FlowFailed, Flowrun, Job, JobFailed, backoff


@dataclass
class Shop:
    """A shop's handlers, and what they did."""

    app: Flowrun
    broken: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    mails: list[tuple[str, str]] = field(default_factory=list)

    def did(self, what: str) -> str:
        if what in self.broken:
            raise ConnectionError(f"{what}: the provider is down")
        self.done.append(what)
        return what


@pytest.fixture
def shop(app: Flowrun) -> Shop:
    shop = Shop(app)
    for name in ("charge_payment", "send_confirmation", "generate_invoice", "sync_inventory", "notify_warehouse"):
        app.handler(name, attempts=2, backoff=backoff.constant(0.01))(step(shop, name))

    @app.handler
    async def send_problem_email(job: Job, to: str) -> None:
        for parent in (job.parents or {}).values():
            shop.mails.append((to, f"{parent.name} failed: {parent.error}"))

    return shop


def step(shop: Shop, name: str) -> Callable[..., object]:
    async def handler(order_id: int) -> str:
        return shop.did(name)

    handler.__name__ = name
    return handler


@pytest.mark.parametrize("workers", [1, 8])
async def test_steps_in_sequence(shop, app, workers) -> None:
    """Exercise 1: each step begins when the one before has succeeded, however many workers there are."""
    names = ["charge_payment", "send_confirmation", "generate_invoice", "sync_inventory", "notify_warehouse"]
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(app.worker(concurrency=2))
        runs = [await app.chain([app.job(name, {"order_id": n}) for name in names]).dispatch() for n in range(3)]
        for run in runs:
            await run.result(timeout=20)
            jobs = list((await run.status()).nodes.values())
            assert [job.type for job in jobs] == names
            for before, after in zip(jobs, jobs[1:], strict=False):
                assert before.finished_at is not None
                assert after.started_at is not None
                assert before.finished_at <= after.started_at
    assert sorted(shop.done) == sorted(names * 3)


def order(app: Flowrun):
    flow = app.flow("order-42", tags=["order"])
    mail = flow.add(app.job("charge_payment", {"order_id": 42})).then(app.job("send_confirmation", {"order_id": 42}))
    invoice = flow.add(app.job("generate_invoice", {"order_id": 42}), after=mail)
    stock = flow.add(app.job("sync_inventory", {"order_id": 42}), after=mail)
    flow.add(app.job("notify_warehouse", {"order_id": 42}), after=[invoice, stock])
    return flow


async def test_a_failing_confirmation_stops_invoice_and_inventory(shop, app, connection) -> None:
    """Exercise 2: retried, then the end of the line for all behind it; nothing stays open."""
    shop.broken.add("send_confirmation")
    async with app.worker(concurrency=4):
        run = await order(app).dispatch()
        with pytest.raises(FlowFailed, match="the provider is down") as error:
            await run.result(timeout=20)
        assert error.value.failed == ("send_confirmation",)
        status = await run.status()
        attempts = await run["send_confirmation"].attempts()
        (found,) = await app.jobs.list(state="failed")
    assert {name: job.state for name, job in status.nodes.items()} == {
        "charge_payment": "succeeded", "send_confirmation": "failed", "generate_invoice": "skipped",
        "sync_inventory": "skipped", "notify_warehouse": "skipped",
    }  # fmt: skip
    assert status["send_confirmation"].attempts == 2
    assert "send_confirmation" in (status["generate_invoice"].error or "")
    assert [attempt.message for attempt in attempts] == ["send_confirmation: the provider is down"] * 2
    assert shop.done == ["charge_payment"]
    for table in ("blocked", "ready", "scheduled", "leases"):
        assert await connection.fetchval(f"select count(*) from flowrun.{table}") == 0
    assert (found.id, found.type, found.attempts) == (run["send_confirmation"].id, "send_confirmation", 2)


async def test_a_failing_email_that_is_only_nice_to_have(shop, app) -> None:
    """Exercise 3: its failure is recorded, and the rest goes on."""
    shop.broken.add("send_confirmation")
    flow = app.flow("order-43")
    pay = flow.add(app.job("charge_payment", {"order_id": 43}))
    mail = flow.add(app.job("send_confirmation", {"order_id": 43}), after=pay, optional=True)
    flow.add(app.job("generate_invoice", {"order_id": 43}), after=mail)
    flow.add(app.job("sync_inventory", {"order_id": 43}), after=mail)
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run.wait(timeout=20)).state == "succeeded"
        status = await run.status()
    assert status["send_confirmation"].state == "failed"
    assert status["send_confirmation"].error == "send_confirmation: the provider is down"
    assert sorted(shop.done) == ["charge_payment", "generate_invoice", "sync_inventory"]


async def test_parents_first_to_three_levels(app) -> None:
    """A parent's children run after it, theirs after them."""
    order: list[str] = []

    @app.handler
    async def visit(name: str) -> str:
        order.append(name)
        await asyncio.sleep(0)
        return name

    flow = app.flow("tree")
    root = flow.add(visit.job(name="root"), name="root")
    for left in "ab":
        child = root.add_child(visit.job(name=left))
        for right in "xy":
            grandchild = flow.add_child(child, visit.job(name=left + right))
            grandchild.add_child(visit.job(name=f"{left}{right}!"))
    async with app.worker(concurrency=8):
        await (await flow.dispatch()).wait(timeout=20)
    assert len(order) == 11
    for name in order:
        parent = {1: "root", 2: name[:1], 3: name[:2]}[len(name)] if name != "root" else None
        assert parent is None or order.index(parent) < order.index(name)


async def test_a_failed_job_sends_a_problem_email_with_the_error(shop, app) -> None:
    shop.broken.add("charge_payment")
    flow = order(app)
    pay = flow.nodes[0]
    flow.add(app.job("send_problem_email", {"to": "ann"}), after=pay.failed, name="sorry")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run.wait(timeout=20)).state == "failed"
        with pytest.raises(JobFailed, match="the provider is down"):
            await run["charge_payment"].result(timeout=10)
        assert (await run["sorry"].status()).state == "succeeded"
    assert shop.mails == [("ann", "charge_payment failed: charge_payment: the provider is down")]
    assert shop.done == []


async def test_dispatched_inside_a_handler_not_twice(app) -> None:
    """The way of the course: the next step is enqueued in the handler, and a retry does not enqueue it twice."""
    done: list[str] = []

    @app.handler
    async def second() -> None:
        done.append("second")

    @app.handler(attempts=3, backoff=backoff.constant(0.01))
    async def first(job: Job) -> None:
        await second.dispatch()
        done.append(f"first {job.attempt}")
        if job.attempt < 3:
            raise ConnectionError("after the dispatch")

    async with app.worker(concurrency=4):
        run = await first.dispatch()
        await run.wait(timeout=20)
        (follow,) = await app.jobs.list(type="second")
        await (await app.get_job(follow.id)).result(timeout=20)
        assert follow.dispatched_by == run.id
    assert done == ["first 1", "first 2", "first 3", "second"]
