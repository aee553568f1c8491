"""The order flow of the founding documents, through public names only."""

from __future__ import annotations

import pytest

from flowrun import FlowFailed, Flowrun


@pytest.fixture
def ran(app: Flowrun) -> list[str]:
    names: list[str] = []

    @app.handler(attempts=1)
    async def step(name: str, fail: bool = False) -> str:
        names.append(name)
        if fail:
            raise ValueError(f"{name} broke")
        return name

    return names


def order(app: Flowrun, failing: str = ""):
    step = app.registry.get("step")
    flow = app.flow("order-42")

    def job(name: str, **options):
        return app.job("step", {"name": name, "fail": name == failing}, **options)

    assert step
    pay = flow.add(job("pay"), name="pay")
    mail = flow.add(job("mail"), after=pay, name="mail")
    invoice = flow.add(job("invoice", optional=True), after=mail, name="invoice")
    stock = flow.add(job("stock"), after=mail, name="stock")
    flow.add(job("warehouse"), after=[invoice.finished, stock], name="warehouse")
    flow.add(job("sorry"), after=pay.failed, name="sorry")
    return flow


async def states(run) -> dict[str, str]:
    return {name: job.state for name, job in (await run.wait(timeout=10)).nodes.items()}


async def test_all_succeed(app: Flowrun, ran: list[str]) -> None:
    async with app.worker(concurrency=4):
        run = await order(app).dispatch()
        assert await run.result(timeout=10) == {"warehouse": "warehouse", "sorry": None}
        assert (await states(run))["sorry"] == "skipped"
    assert ran[:2] == ["pay", "mail"]
    assert set(ran[2:4]) == {"invoice", "stock"}
    assert ran[4:] == ["warehouse"]


async def test_a_failing_payment_stops_everything_but_the_apology(app: Flowrun, ran: list[str]) -> None:
    async with app.worker(concurrency=4):
        run = await order(app, failing="pay").dispatch()
        with pytest.raises(FlowFailed, match="pay") as failure:
            await run.result(timeout=10)
        assert failure.value.failed == ("pay",)
        found = await states(run)
    assert found == {
        "pay": "failed",
        "mail": "skipped",
        "invoice": "skipped",
        "stock": "skipped",
        "warehouse": "skipped",
        "sorry": "succeeded",
    }
    assert ran == ["pay", "sorry"]


async def test_a_failing_optional_invoice_stops_nothing(app: Flowrun, ran: list[str]) -> None:
    async with app.worker(concurrency=4):
        run = await order(app, failing="invoice").dispatch()
        assert (await run.result(timeout=10))["warehouse"] == "warehouse"
        found = await run.wait(timeout=10)
    assert found.state == "succeeded"
    assert found["invoice"].state == "failed"
    assert found["invoice"].error == "invoice broke"
