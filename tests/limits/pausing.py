"""One of several processes whose jobs note when they begin.

    python -m tests.limits.pausing DSN JOURNAL

By the clock that all processes of a machine share, so that a pause in one can be compared with a begin in another.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from flowrun import Flowrun


def make_app(dsn: str, journal: Path) -> Flowrun:
    """Handlers of each kind, all of the queue ``held`` but one."""
    app = Flowrun(dsn, lease=20.0)
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(type: str) -> None:
        os.write(file, f"{type} {time.monotonic_ns()} {os.getpid()}\n".encode())

    @app.handler("quick", queue="held")
    async def quick() -> None:
        note("quick")

    @app.handler("waits", queue="held", timeout=30.0)
    async def waits() -> None:
        note("waits")
        await asyncio.sleep(0.005)

    @app.handler("thread", queue="held")
    def thread() -> None:
        note("thread")
        time.sleep(0.001)

    @app.handler("other", queue="free")
    async def other() -> None:
        note("other")

    return app


def doze(place: str, seconds: float) -> None:
    """Say that it has begun, and keep a process busy."""
    Path(place).touch()
    time.sleep(seconds)


async def _work(dsn: str, journal: Path) -> None:
    app = make_app(dsn, journal)
    async with app.worker(concurrency=8, queues=["held", "free"]), app.worker(concurrency=8, queues=["held", "free"]):
        print("working", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], Path(sys.argv[2])))
