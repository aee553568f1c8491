"""A web app under load: ``python -m tests.chaos.load --dispatchers 1000 --jobs 1000000``.

A FastAPI app with an embedded worker takes requests from many clients at once, each of which dispatches a job: how long
do they wait, does the worker keep its lease, is all of it run? Then a queue is filled with a million jobs, and a worker
works it off: does its memory stay where it was?
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import asyncpg
import httpx
from fastapi import FastAPI

from flowrun import Flowrun
from flowrun.testing import databases

LEASE = 6.0


@dataclass
class Answers:
    """What the clients saw, and how much of its lease the worker had left at worst."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    least_lease: float = LEASE
    ran: int = 0

    def percentile(self, percent: int) -> float:
        return quantiles(self.seconds, n=100)[percent - 1]


async def serve(dsn: str, dispatchers: int, each: int) -> Answers:
    """Let ``dispatchers`` clients ask ``each`` times at once."""
    app = Flowrun(dsn, lease=LEASE)
    answers = Answers()

    @app.handler("order")
    async def order(number: int) -> int:
        answers.ran += 1
        return number

    web = FastAPI(lifespan=app.lifespan)

    @web.post("/orders/{number}")
    async def post(number: int) -> dict[str, str]:
        run = await app.job("order", {"number": number}).dispatch()
        return {"id": str(run.id)}

    async with web.router.lifespan_context(web):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://web", timeout=120) as client:
            watching = asyncio.create_task(_watch_lease(dsn, answers))

            async def dispatch(number: int) -> None:
                for turn in range(each):
                    begun = time.monotonic()
                    answer = await client.post(f"/orders/{number * each + turn}")
                    answers.seconds.append(time.monotonic() - begun)
                    answers.refused += answer.status_code != 200

            await asyncio.gather(*(dispatch(number) for number in range(dispatchers)))
            deadline = time.monotonic() + 60
            while answers.ran < dispatchers * each and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            watching.cancel()
    return answers


async def _watch_lease(dsn: str, answers: Answers) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            left = await connection.fetchval(
                "select min(extract(epoch from expires_at - clock_timestamp()))::float8 from flowrun.workers"
            )
            answers.least_lease = min(answers.least_lease, left if left is not None else LEASE)
            await asyncio.sleep(0.1)
    finally:
        connection.terminate()


async def deep_queue(dsn: str, jobs: int, seconds: float) -> tuple[int, int, int]:
    """Memory in bytes before and after working at a queue of ``jobs`` for a while, and how many were run."""
    app = Flowrun(dsn, lease=LEASE)
    ran = 0

    @app.handler("order")
    async def order(number: int) -> None:
        nonlocal ran
        ran += 1

    async with app:
        for at in range(0, jobs, 10_000):
            await app.dispatch_many([app.job("order", {"number": n}) for n in range(at, min(at + 10_000, jobs))])
        connection = await asyncpg.connect(dsn)
        await connection.execute("vacuum analyze")
        await connection.close()
        async with app.worker(concurrency=100):
            while ran < min(jobs, 2_000):
                await asyncio.sleep(0.01)
            before = memory()
            deadline = time.monotonic() + seconds
            while ran < jobs and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            return before, memory(), ran


def memory() -> int:
    """Bytes that this process has in memory now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.load", description=__doc__)
    parser.add_argument("--dispatchers", type=int, default=1000)
    parser.add_argument("--each", type=int, default=10, help="requests of each dispatcher (default 10)")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="in the deep queue (default 1,000,000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="to work at it (default 30)")
    asked = parser.parse_args()
    with databases.server(None) as server:
        template = await databases.template(server)
        dsn = await databases.create(server, template)
        begun = time.monotonic()
        answers = await serve(dsn, asked.dispatchers, asked.each)
        total = time.monotonic() - begun
        print(
            f"{asked.dispatchers} dispatchers at once, {len(answers.seconds):,} dispatches in {total:.1f} s: "
            f"p50 {answers.percentile(50) * 1000:.0f} ms, p99 {answers.percentile(99) * 1000:.0f} ms, "
            f"slowest {max(answers.seconds) * 1000:.0f} ms; {answers.refused} refused; {answers.ran:,} run; "
            f"of a lease of {LEASE:.0f} s at least {answers.least_lease:.1f} s were left",
            flush=True,
        )
        dsn = await databases.create(server, template)
        before, after, ran = await deep_queue(dsn, asked.jobs, asked.seconds)
        print(
            f"a queue of {asked.jobs:,}: {ran:,} run, memory {before / 2**20:.0f} MiB after the first 2,000 of them, "
            f"{after / 2**20:.0f} MiB at the end"
        )


if __name__ == "__main__":
    asyncio.run(main())
