"""``flowrun check``: no database, everything that can be said of a program."""

from __future__ import annotations

import json

from tests.cli.conftest import Shell

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from flowrun import Flow, Flowrun, Job

app = Flowrun("postgresql://127.0.0.1:1/never")

@dataclass
class Order:
    id: int

@app.handler(queue="bills")
async def pay(order: Order) -> int: return order.id

@app.handler
def mail(job: Job, paid: int) -> None: ...

@app.handler(process=True)
def train(rows: int = 1) -> float: return 1.0

@app.cron("0 3 * * *")
@app.handler
async def nightly() -> None: ...

def order_flow(order: int = 1) -> Flow:
    flow = app.flow("order")
    paid = flow.add(pay.job(Order(order)))
    flow.add(mail.job(paid=paid.result))
    return flow

async def late_flow(app: Flowrun) -> Flow:
    return app.chain(pay.job(Order(1)), app.job("elsewhere"))

def needs(number: int) -> Flow: return app.flow("x")
"""

BAD = """
from __future__ import annotations
from typing import TYPE_CHECKING
from flowrun import Flow, Flowrun
if TYPE_CHECKING:
    from decimal import Decimal

app = Flowrun("postgresql://127.0.0.1:1/never")

class Strange: ...

@app.handler
async def pay(amount: Decimal) -> int: return 1

@app.handler
async def strange(what: Strange) -> None: ...

@app.handler
async def fine(number: int) -> int: return number

def circle() -> Flow:
    flow = app.flow("circle")
    a = flow.add(fine.job(1), name="a", after="b")
    flow.add(fine.job(1), name="b", after=a)
    return flow

def wrong_argument() -> Flow:
    flow = app.flow("wrong")
    flow.add(fine.job(number="many"))
    return flow

def raises() -> Flow: raise ValueError("of mine")
"""


async def test_a_right_program_passes_and_says_what_was_looked_at(shell: Shell) -> None:
    (shell.directory / "good.py").write_text(GOOD)
    code, out, err = await shell.run("check", "good:app")
    assert (code, err) == (0, "")
    for line in (
        "handler: pay (async, queue 'bills')",
        "handler: mail (thread, queue 'default')",
        "handler: train (process, queue 'default')",
        "schedule: nightly: 0 3 * * * (UTC)",
        "flow: good.order_flow: 'order', 2 job(s)",
        "note  flow: good.late_flow: no handler of type 'elsewhere' here",
        "flow: good.late_flow: 'chain', 2 job(s)",
        "note  flow: good.needs: not checked, it needs an argument: number",
    ):
        assert line in out, out


async def test_what_is_wrong_is_named_and_the_exit_code_is_1(shell: Shell) -> None:
    (shell.directory / "bad.py").write_text(BAD)
    code, out, _ = await shell.run("check", "bad:app", "--json")
    assert code == 1
    wrong = {one["found"] for one in map(json.loads, out.splitlines()) if one["level"] == "wrong"}
    for part in (
        "pay: the annotation of parameter 'amount', 'Decimal', cannot be resolved",
        "strange: its annotations cannot be converted",
        "bad.circle: ",
        "bad.wrong_argument: node 'fine', argument 'number'",
        "bad.raises: making it failed: ValueError: of mine",
    ):
        assert any(found.startswith(part) for found in wrong), wrong
    assert len(wrong) == 5
    assert (await shell.run("check", "bad:nothing"))[0] == 2
