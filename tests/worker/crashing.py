"""A worker program that dies at a named point: ``python -m tests.worker.crashing`` with FLOWRUN_CRASH_AT set."""

from __future__ import annotations

import asyncio
import os

from flowrun import Flowrun, Job

app = Flowrun(os.environ["PROGRAM_DSN"], lease=1.0, poll=0.2)


@app.handler("work", attempts=20)
async def work(name: str = "work") -> str:
    return name


@app.handler(attempts=20)
async def dispatches(job: Job) -> None:
    await app.job("work", {"name": "dispatched"}, tags=["tail"]).dispatch()


async def dispatch_many() -> None:
    await app.dispatch_many([app.job("leaf", {"number": number}, queue="leaves") for number in range(1500)])


@app.handler(attempts=20)
async def lingers(job: Job) -> None:
    if job.attempt == 1:
        await asyncio.sleep(60)


@app.handler(attempts=20)
async def dispatches_many() -> None:
    await dispatch_many()


@app.handler(attempts=20, on_lost="fail")
async def dispatches_many_once() -> None:
    await dispatch_many()


@app.handler(attempts=20)
async def spawns(job: Job) -> None:
    first = job.spawn(app.job("work"), name="spawned")
    job.spawn(app.job("work"), name="spawned after", after=first)


@app.handler(attempts=20)
async def completes(job: Job) -> None:
    async with job.transaction() as tx:
        await tx.connection.execute("insert into ledger (job) values ($1)", job.id)
        await app.job("work", {"name": "from within"}, tags=["within"]).dispatch()
        await tx.complete("paid")


async def main() -> None:
    async with app.worker(concurrency=4, queues=["default"]):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
