"""A worker program for tests that kill processes: ``python -m tests.worker.programs``.

Settings come by environment: PROGRAM_DSN, PROGRAM_JOURNAL (a file; one line an event, appended), PROGRAM_CONCURRENCY.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from flowrun import Flowrun, Job

app = Flowrun(os.environ["PROGRAM_DSN"], lease=2.0, poll=1.0, crash_limit=3)
_journal = os.open(os.environ["PROGRAM_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def journal(event: str, job: Job) -> None:
    """One line, written at once: it survives a kill."""
    os.write(_journal, f"{event} {job.id} {job.attempt} {os.getpid()} {time.monotonic_ns()} {job.name}\n".encode())


@app.handler(attempts=5)
async def step(job: Job, seconds: float = 0.0) -> str:
    journal("start", job)
    if seconds:
        await asyncio.sleep(seconds)
    journal("end", job)
    return str(job.id)


@app.handler(attempts=5)
async def after(job: Job, value: str) -> str:
    journal("start", job)
    journal("end", job)
    return value


@app.handler(attempts=2)
async def poison(job: Job) -> None:
    journal("start", job)
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app.worker(concurrency=int(os.environ.get("PROGRAM_CONCURRENCY", "4")), grace=5.0):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
