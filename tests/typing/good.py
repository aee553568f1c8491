"""A user's program that must type-check under mypy --strict and pyright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from flowrun import (
    FlowRun,
    Flowrun,
    FlowStatus,
    Handler,
    Job,
    JobRun,
    JobSpec,
    JobStatus,
    Node,
    Parent,
    ScheduleStatus,
    any_of,
    at_least,
    backoff,
    race,
)

app = Flowrun("postgresql://localhost/shop", schema="jobs", lease=30.0)


@dataclass
class Receipt:
    id: int
    lines: list[str]


@app.handler("charge_payment", queue="billing", attempts=5, backoff=backoff.exponential(2.0, cap=300.0), timeout=30.0)
async def charge_payment(order_id: int, token: str) -> Receipt:
    return Receipt(order_id, [token])


@app.cron("*/15 * * * * *", overlap="skip")
async def beat(job: Job, day: str = "today") -> int:
    return 1


@app.cron("0 3 * * *", timezone="Europe/Paris")
@app.handler("nightly", queue="reports")
def nightly(day: str = "today") -> str:
    return day


@app.handler
async def send_email(job: Job, to: str) -> None:
    job.log.info("sending to %s", to)
    assert_type(await job.step("charge", charge_payment, 1, token="t"), Receipt)
    assert_type(await job.step("resize", resize, "a.png"), str)
    assert_type(await job.step("count", lambda: 5), int)
    await job.progress(0.5, "sent")
    assert_type(job.parents["pay"], Parent)
    assert_type(job.parents.get("pay"), Parent | None)


@app.handler
def resize(path: str) -> str:
    return path


@app.handler("train", process=True, timeout=60.0)
def train(rows: int) -> float:
    return rows / 2


@app.handler(process=True)
def train_with_job(job: Job, rows: int) -> str:
    job.progress(0.5)
    return f"{job.id}{rows}"


@app.handler(queue="thumbs")
def resize_with_job(job: Job, path: str, width: int = 100) -> bytes:
    return f"{job.id}{path}{width}".encode()


@app.handler
async def generate_invoice(receipt: Receipt) -> int:
    return receipt.id


@app.handler
async def pick(numbers: list[int], line: str) -> int:
    return max(numbers) + len(line)


def accepts(handler: Handler[[int, str], Receipt]) -> None:
    print(handler.type)


async def main() -> None:
    assert_type(beat.job(day="monday"), JobSpec[int])
    assert_type(await beat.dispatch(), JobRun[int])
    assert_type(nightly.job(day="monday"), JobSpec[str])
    assert_type(nightly(day="monday"), str)
    assert_type(await app.schedules.put("s", every=15.0, spec=nightly.job(), catchup="last"), bool)
    assert_type(await app.schedules.get("s"), ScheduleStatus)
    accepts(charge_payment)
    assert_type(await charge_payment(order_id=1, token="t"), Receipt)
    assert_type(resize("a.png"), str)
    assert_type(train(rows=3), float)
    assert_type(await train_with_job.job(rows=1).dispatch(), JobRun[str])
    run = await charge_payment.dispatch(order_id=1, token="t")
    assert_type(run, JobRun[Receipt])
    assert_type(await run.result(timeout=10), Receipt)
    assert_type(await run.status(), JobStatus)
    spec = charge_payment.job(order_id=1, token="t").options(priority=1, delay=5.0)
    assert_type(spec, JobSpec[Receipt])
    assert_type(await spec.dispatch(), JobRun[Receipt])
    keyed = spec.options(key="order-1", on_conflict="replace", key_ttl=60.0)
    assert_type(await keyed.dispatch(tx=object(), now=True), JobRun[Receipt])
    assert_type((await keyed.dispatch()).duplicate, bool)
    assert_type(await send_email.dispatch(to="x"), JobRun[None])
    assert_type(await resize_with_job.job("x").dispatch(), JobRun[bytes])
    flow = app.flow("order-42", queue="billing", key="order-42", on_conflict="raise", deadline=7200.0)
    pay = flow.add(charge_payment.job(order_id=42, token="t"))
    assert_type(pay, Node[Receipt])
    invoice = flow.add(generate_invoice.job(receipt=pay.result), after=pay)
    other = flow.add(generate_invoice.job(pay.result), after=[pay.succeeded, invoice.finished])
    flow.add(pick.job([invoice.result, other.result], pay.result.lines[0]), after=any_of(invoice, other))
    flow.add(resize.job("p"), after=at_least(1, invoice.failed, other.failed), name="resize")
    flow.add_child(pay, send_email.job(to="x"))
    pay.then(resize.job("p")).then(send_email.job("y"))
    flow.on_failure(send_email.job(to="boss"))
    mapped = flow.map(resize, over=["a", "b"])
    assert_type(mapped, Node[list[str]])
    flow.add(resize.job("p"), after=race(pay, mapped.when("length", ">", 1)), compensate=resize.job("q"))
    gate = flow.wait_for("ok", answers=["yes"], timeout=5.0)
    flow.add(resize.job("p"), after=gate.when("yes"), cleanup=True)
    flow_run = await flow.dispatch()
    assert_type(flow_run, FlowRun)
    assert_type(await flow_run.wait(timeout=5.0), FlowStatus)
    assert_type((await flow.dispatch(tx=object(), now=True)).duplicate, bool)
    runs = await app.dispatch_many([send_email.job(to=user) for user in ("a", "b")], tx=object(), now=True)
    print(len(runs))
    async with app.worker(concurrency=10, queues=["default", "billing"]):
        pass
