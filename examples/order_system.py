"""The order system of a small shop: what flowrun offers, in one program made to be copied.

    check_fraud ──┬── goods: reserve, one job an article ─────┬── charge_payment ──┬── send_mail
                  └── approved: a person, if it looks risky ──┘                    ├── write_invoice (optional)
                                                                                   └── ship, when that has finished
    and if it fails: refund the payment, release the goods, close the order, tell the customer

`place_order` writes the order and its flow in one transaction: both are there, or neither. An order has a key, so a
customer who clicks twice orders once. What failed for good waits in the dead letter until somebody mends it.
`python order_system.py` plays a day in the shop; `flowrun serve order_system:app --processes 2` works for a real one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flowrun import CallNext, Flow, FlowRun, Flowrun, FlowStatus, HookEvent, Job, JobError, JobStatus, any_of, backoff

app = Flowrun()
app.queue("mail", concurrency=5, rate=(200, 60.0))  # what the mail server allows, all workers together
app.retention({"succeeded": 7 * 86_400.0, "failed": 90 * 86_400.0})  # seconds; open flows are never pruned
HIGH = 100_000  # cents from which a person looks at an order
counted: Counter[str] = Counter()  # what monitoring would scrape

TABLES = """
    select pg_advisory_xact_lock(43);
    create table if not exists orders (id int primary key, customer text, cents int, state text default 'new');
    create table if not exists payments (order_id int primary key, charge text, cents int, refunded bool default false);
    create table if not exists stock (article text primary key, available int);
    create table if not exists reserved (order_id int, article text, primary key (order_id, article));
    create table if not exists mails (job uuid primary key, recipient text, subject text);
    insert into stock values ('teapot', 100), ('cup', 100), ('moon', 0) on conflict do nothing;
"""


class CardRefused(Exception):
    """The bank said no: asking again will not help."""


@dataclass
class Order:
    id: int
    customer: str
    cents: int
    articles: list[str] = field(default_factory=lambda: ["teapot"])
    card: str = "good"


@dataclass
class Receipt:
    order_id: int
    charge: str
    cents: int


# -- payment ---------------------------------------------------------------------------------------


@app.handler(timeout=10.0)
async def check_fraud(order: Order) -> dict[str, Any]:
    return {"risk": "high" if order.cents > HIGH else "low"}


@app.handler(
    queue="payments",
    attempts=4,
    backoff=backoff.exponential(1.0, cap=60.0),
    timeout=10.0,
    give_up_on=CardRefused,
    limit=("bank", 20),  # the bank takes 20 calls at once, whatever the queue and the worker
)
async def charge_payment(job: Job, order: Order) -> Receipt:
    # A step is remembered between attempts: the bank is asked once, also when what follows fails.
    charge = await job.step("authorise", ask_the_bank, order, job.id.hex)
    if order.card == "flaky" and job.attempt == 1:
        raise ConnectionError("the bank hung up")
    receipt = Receipt(order.id, charge, order.cents)
    async with job.transaction() as tx:  # our own row, the result, and what comes next: one commit
        await tx.connection.execute("insert into payments values ($1, $2, $3)", order.id, charge, order.cents)
        await tx.complete(receipt)
    return receipt


async def ask_the_bank(order: Order, idempotency_key: str) -> str:
    if order.card == "refused":
        raise CardRefused(f"card of {order.customer}")
    return f"ch-{idempotency_key[-8:]}"


@app.handler(queue="payments", attempts=10)
async def refund(receipt: Receipt) -> None:
    await execute("update payments set refunded = true where order_id = $1", receipt.order_id)


@charge_payment.on_failure
async def tell_the_customer(job: Job, error: JobError) -> None:
    """A job of its own, written by the commit that records the failure."""
    order = error.args["order"]
    await send_mail.dispatch(order["customer"], f"Your payment for order {order['id']} failed")


# -- goods -----------------------------------------------------------------------------------------


@app.handler(give_up_on=LookupError)
async def reserve(article: str, order_id: int) -> str:
    async with app.client.database.acquire() as db, db.transaction():
        new = "insert into reserved values ($1, $2) on conflict do nothing returning 1"
        if await db.fetchval(new, order_id, article):  # the second time nothing happens
            one_less = "update stock set available = available - 1 where article = $1 and available > 0 returning 1"
            if not await db.fetchval(one_less, article):
                raise LookupError(f"{article} is sold out")
    return article


@app.handler
async def release(order_id: int) -> None:
    """Undo what was reserved for an order."""
    await execute(
        "with gone as (delete from reserved where order_id = $1 returning article) "
        "update stock set available = available + 1 from gone where stock.article = gone.article",
        order_id,
    )


@app.handler(attempts=2, backoff=backoff.constant(0.2), sequence="supplier")  # one at a time, in order
async def restock(article: str, count: int, supplier: str) -> int:
    if supplier == "closed":
        raise ConnectionError("nobody answers")
    await execute("update stock set available = available + $2 where article = $1", article, count)
    return count


@app.handler(queue="warehouse", tags=["shipping"])
async def ship(order_id: int, articles: list[str]) -> str:
    await execute("update orders set state = 'shipped' where id = $1", order_id)
    return f"parcel {order_id}: {', '.join(articles)}"


@app.handler
async def close(order_id: int) -> None:
    await execute("update orders set state = 'cancelled' where id = $1", order_id)


# -- paper -----------------------------------------------------------------------------------------


@app.handler(queue="mail", attempts=5, backoff=[1.0, 10.0, 60.0])
async def send_mail(job: Job, to: str, subject: str) -> None:
    # Sent at least once; the job's id makes it once.
    await execute("insert into mails values ($1, $2, $3) on conflict do nothing", job.id, to, subject)


@app.handler(process=True, timeout=30.0, optional=True)  # draws a page: its own process, so that nobody waits for it
def write_invoice(receipt: Receipt) -> str:
    return f"Invoice {receipt.charge}: {receipt.cents / 100:.2f} EUR"


# -- the flow --------------------------------------------------------------------------------------


def order_flow(order: Order) -> Flow:
    flow = app.flow("order", key=f"order-{order.id}", tags=[order.customer], deadline=86_400.0, output="ship")
    fraud = flow.add(check_fraud.job(order))
    person = flow.wait_for("approved", after=fraud.when("risk", "==", "high"), answers=["yes", "no"], timeout=3600.0)
    goods = flow.map(app.job("reserve", {"order_id": order.id}), over=order.articles, name="goods", after=fraud)
    pay = flow.add(
        charge_payment.job(order), after=[goods, any_of(fraud.when("risk", "==", "low"), person.when("yes"))]
    )
    pay.compensate(refund.job(pay.result))
    invoice = flow.add(write_invoice.job(pay.result))
    flow.add(send_mail.job(order.customer, f"Thank you for order {order.id}").options(priority=2), after=pay)
    flow.add(ship.job(order.id, goods.result), after=[pay, invoice.finished])
    flow.on_failure(release.job(order.id))
    flow.on_failure(close.job(order.id))
    return flow


async def place_order(order: Order) -> FlowRun:
    """The order and its flow, in one transaction. Twice is once: the key."""
    async with app.client.database.acquire() as db, db.transaction():
        row = "insert into orders (id, customer, cents) values ($1, $2, $3) on conflict do nothing"
        await db.execute(row, order.id, order.customer, order.cents)
        return await order_flow(order).dispatch(tx=db)


# -- again and again -------------------------------------------------------------------------------


@app.cron("0 3 * * *", timezone="Europe/Paris", overlap="skip", catchup="last")
@app.handler(priority=8)
async def count_orders(job: Job) -> dict[str, int]:
    async with app.client.database.acquire() as db:
        return dict(await db.fetch("select state, count(*) from orders group by state"))


# -- what operators see ----------------------------------------------------------------------------


@app.middleware
async def timed(job: Job, call_next: CallNext) -> Any:
    started = time.perf_counter()
    try:
        return await call_next(job)
    finally:
        counted[f"{job.type} ms"] += round((time.perf_counter() - started) * 1000)


@app.on("job_failed")
async def count_failures(job: Job) -> None:
    counted[f"{job.type} failed"] += 1


@app.on("flow_finished")
async def count_flows(event: HookEvent) -> None:
    counted[f"orders {event.outcome}"] += 1


async def execute(sql: str, *args: Any) -> None:
    async with app.client.database.acquire() as db:
        await db.execute(sql, *args)


async def prepare() -> None:
    await app.migrate()
    async with app:
        await execute(TABLES)


# -- a day -----------------------------------------------------------------------------------------


async def main() -> None:
    await prepare()
    async with app.worker(concurrency=20):
        print(order_flow(Order(0, "nobody", 100)), end="\n\n")
        orders = [
            Order(1, "ann", 4_900, ["teapot", "cup"]),
            Order(2, "ben", 900, ["cup"], card="flaky"),
            Order(3, "cy", 4_900, card="refused"),
            Order(4, "dee", 1_000, ["cup", "moon"]),
            Order(5, "eve", 250_000),
        ]
        runs = {order.customer: await place_order(order) for order in orders}
        print("ann clicks again, a duplicate:", (await place_order(orders[0])).duplicate)
        await answer(runs["eve"], "yes")
        for customer, run in runs.items():
            status = await run.wait(timeout=30)
            print(f"{customer}: {status.state}", *(f"{name} {job.state}" for name, job in bad(status)), sep=", ")
        order_moons = await restock.dispatch("moon", 5, supplier="closed")
        await order_moons.wait(timeout=30)
        for job in await app.failed.list(type="restock"):  # the dead letter: mended by hand, and run again
            print(f"mending {job.type}{dict(job.args)}: {job.message}")
            await app.failed.retry(job.id, args={**job.args, "supplier": "open"}, actor="fred")
        print("moons:", await order_moons.result(timeout=30))
        again = await place_order(Order(6, "dee", 1_000, ["cup", "moon"]))
        print("dee gets", await again.result(timeout=30))
        report = await app.schedules.trigger("count_orders")  # not only at three in the morning
        print("report:", await report.result(timeout=30))


def bad(status: FlowStatus) -> list[tuple[str, JobStatus]]:
    return [(name, job) for name, job in status.nodes.items() if job.state == "failed"]


async def answer(run: FlowRun, value: str) -> None:
    """What the person does who looks at risky orders."""
    while not await app.gates.list():
        await asyncio.sleep(0.05)
    await run.signal("approved", value, actor="fred")


if __name__ == "__main__":
    asyncio.run(main())
