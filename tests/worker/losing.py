"""A worker program for tests of lost attempts: ``python -m tests.worker.losing``. Settings as those of ``programs``."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from flowrun import Flowrun, Job

app = Flowrun(os.environ["PROGRAM_DSN"], lease=1.0, poll=0.5, crash_limit=int(os.environ.get("PROGRAM_LIMIT", "5")))
_journal = os.open(os.environ["PROGRAM_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def journal(event: str, job: Job) -> None:
    """One line, written at once: it survives a kill."""
    os.write(_journal, f"{event} {job.id} {job.attempt} {os.getpid()} {time.monotonic_ns()} {job.name}\n".encode())


def ends(job: Job) -> None:
    journal("start", job)
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler(attempts=1)
async def bystander(job: Job, seconds: float = 0.2) -> None:
    journal("start", job)
    await asyncio.sleep(seconds)
    journal("end", job)


@app.handler(attempts=1)
async def poison(job: Job, seconds: float = 0.0) -> None:
    await asyncio.sleep(seconds)
    ends(job)


@app.handler(attempts=1, on_lost="fail")
async def once(job: Job, seconds: float = 30.0) -> None:
    await bystander(job, seconds)


@app.handler(attempts=5, on_lost="fail")
def once_in_thread(job: Job, seconds: float = 30.0) -> None:
    journal("start", job)
    time.sleep(seconds)


@app.handler(attempts=5, on_lost="fail", process=True)
def once_in_process(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(30.0)


@app.handler(attempts=1)
async def plain(job: Job, seconds: float = 30.0) -> None:
    await bystander(job, seconds)


@app.handler(attempts=3, on_lost="fail", backoff=[0.0])
async def raises(job: Job) -> None:
    journal("start", job)
    if job.attempt < 3:
        raise ValueError("again")


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    concurrency = int(os.environ.get("PROGRAM_CONCURRENCY", "8"))
    async with app.worker(concurrency=concurrency, grace=0.3):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
