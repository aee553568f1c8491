"""An order, from the payment to the warehouse: the flow that `flowrun demo` draws.

    charge_payment
    ├── send_confirmation
    │   ├── generate_invoice (optional)  ──┐ finished
    │   └── sync_inventory               ──┴── notify_warehouse
    └── send_problem_email (when the payment failed)

It is a whole program, made to be copied: `python order_pipeline.py` runs one order, `flowrun serve order_pipeline:app`
works for others. The handlers write real rows (tables demo_orders, demo_inventory) and real files (FILES).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from flowrun import Flow, Flowrun, Job, backoff

app = Flowrun()  # the database that FLOWRUN_DSN names, else a PostgreSQL that flowrun starts for you
FILES = Path("order-files")
TABLES = """
    select pg_advisory_xact_lock(42);  -- "if not exists" alone is not safe side by side
    create table if not exists demo_orders (id int primary key, charge text, cents int, sent bool default false);
    create table if not exists demo_inventory (order_id int primary key, article text, change int);
"""


@dataclass
class Receipt:
    order_id: int
    charge: str
    cents: int


# Any failed attempt is repeated after its backoff. So a handler may run twice: what it writes, it writes so that the
# second time changes nothing ("on conflict do nothing", a file of the same name).
@app.handler(attempts=2, backoff=backoff.constant(0.6), timeout=10.0)
async def charge_payment(job: Job, order_id: int, fail: str | None = None) -> Receipt:
    await asyncio.sleep(0.5)  # the bank thinks
    stumble(job, fail)
    # job.id is the same in every attempt: give it to the bank as the idempotency key.
    receipt = Receipt(order_id, charge=f"ch-{job.id.hex[:12]}", cents=4900)
    insert = "insert into demo_orders values ($1, $2, $3) on conflict do nothing"
    async with database() as db:
        await db.execute(insert, order_id, receipt.charge, receipt.cents)
    return receipt


@app.handler(attempts=3, backoff=backoff.constant(0.8))
async def send_confirmation(job: Job, receipt: Receipt, fail: str | None = None) -> str:
    await asyncio.sleep(0.3)
    stumble(job, fail)
    if job.attempt == 1:
        raise ConnectionError("the mail server did not answer")  # raising is all it takes to be run again
    return write(f"{receipt.order_id}-confirmation.txt", f"Thank you! We received {receipt.cents / 100:.2f} EUR.")


@app.handler(attempts=2, backoff=backoff.constant(0.5), optional=True)  # optional: its failure stops nothing
def generate_invoice(job: Job, receipt: Receipt, fail: str | None = None) -> str:  # a plain def runs in a thread
    time.sleep(0.7)
    stumble(job, fail)
    return write(f"{receipt.order_id}-invoice.txt", f"Invoice: {receipt.cents / 100:.2f} EUR, {receipt.charge}")


@app.handler(attempts=2, backoff=backoff.constant(0.5))
async def sync_inventory(job: Job, order_id: int, fail: str | None = None) -> int:
    await asyncio.sleep(0.4)
    stumble(job, fail)
    async with database() as db:
        await db.execute("insert into demo_inventory values ($1, 'teapot', -1) on conflict do nothing", order_id)
        return 1000 + int(await db.fetchval("select sum(change) from demo_inventory"))


@app.handler(attempts=2, backoff=backoff.constant(0.5))
async def notify_warehouse(job: Job, order_id: int, left: int, fail: str | None = None) -> dict[str, Any]:
    await asyncio.sleep(0.3)
    stumble(job, fail)
    async with database() as db:
        await db.execute("update demo_orders set sent = true where id = $1", order_id)
    return {"order": order_id, "parcel": f"P-{order_id}", "teapots_left": left}


@app.handler(attempts=2, backoff=backoff.constant(0.5))
async def send_problem_email(job: Job, order_id: int, fail: str | None = None) -> str:
    await asyncio.sleep(0.3)
    stumble(job, fail)
    return write(f"{order_id}-problem.txt", "Your payment did not go through. Nothing was charged.")


def order_flow(order_id: int, fail: str | None = None) -> Flow:
    """The flow of one order; the node that `fail` names will fail, to show what then happens downstream."""
    flow = app.flow(f"order-{order_id}", output="notify_warehouse")
    # The problem e-mail is only sent after a failed payment: to see it fail, the payment has to fail first.
    pay = flow.add(charge_payment.job(order_id, fail="charge_payment" if fail == "send_problem_email" else fail))
    mail = flow.add(send_confirmation.job(pay.result, fail=fail))  # passing a result draws the edge
    invoice = flow.add(generate_invoice.job(pay.result, fail=fail), after=mail)
    stock = flow.add(sync_inventory.job(order_id, fail=fail), after=mail)
    flow.add(notify_warehouse.job(order_id, left=stock.result, fail=fail), after=[invoice.finished, stock])
    flow.add(send_problem_email.job(order_id, fail=fail), after=pay.failed)
    return flow


def stumble(job: Job, fail: str | None) -> None:
    if job.name == fail:
        raise RuntimeError(f"{fail} was told to fail")


def write(name: str, text: str) -> str:
    FILES.mkdir(parents=True, exist_ok=True)
    (FILES / name).write_text(text + "\n", encoding="utf-8")
    return str(FILES / name)


def database() -> asyncpg.Pool:
    """The shop's own tables, in the same database as flowrun's. (A real shop keeps one pool open.)"""
    return asyncpg.create_pool(app.dsn, min_size=1, max_size=1)


async def prepare() -> None:
    await app.migrate()
    async with database() as db:
        await db.execute(TABLES)


async def main() -> None:
    async with app:
        await prepare()
        async with app.worker(concurrency=4):
            run = await order_flow(42).dispatch()
            print(await run.result(timeout=30))
            print(f"files in {FILES.absolute()}")


if __name__ == "__main__":
    asyncio.run(main())
