"""Mistakes a type checker must find: each line marked `# wrong` and no other."""

from __future__ import annotations

from flowrun import Flowrun, Job

app = Flowrun("postgresql://localhost/shop")


@app.handler("charge", attempts=5)
async def charge(order_id: int, token: str) -> int:
    return order_id + len(token)


@app.handler
async def email(job: Job, to: str) -> None:
    await job.step("charge", charge, order_id="1", token="t")  # wrong
    await job.step("charge", charge(1, "t"))  # wrong
    await job.progress("half")  # wrong
    job.parents["charge"].outcome = "failed"  # wrong
    if job.parents["charge"].outcome == "done":  # wrong
        return


@app.handler
def resize(path: str) -> str:
    return path


@app.handler(process=True)
def train(rows: int) -> float:
    return rows / 2


async def main() -> None:
    train.job(rows="many")  # wrong
    await app.schedules.put("s", every=15.0, spec=resize.job(path="a"), overlap="never")  # wrong
    await app.schedules.put("s", "* * * * *", resize)  # wrong
    charge.job(order_id="1", token="t")  # wrong
    charge.job(order=1, token="t")  # wrong
    charge.job(1)  # wrong
    await charge.dispatch(order_id=1, token="t", queue="x")  # wrong
    await email.dispatch(recipient="x")  # wrong
    charge.job(1, "t").options(prority=1)  # wrong
    charge.job(1, "t").options(priority="high")  # wrong
    charge.job(1, "t").options(on_conflict="ignore")  # wrong
    resize.job(path=1)  # wrong
    flow = app.flow("f")
    first = flow.add(charge.job(1, "t"))
    flow.add(resize.job(path=first.result))  # wrong
    flow.add(charge.job, after=first)  # wrong
    text: str = await (await charge.dispatch(1, "t")).result()  # wrong
    print(text)
