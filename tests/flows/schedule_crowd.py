"""One of several processes that take the ticks of the same schedules: four workers, whose jobs do nothing.

    python -m tests.flows.schedule_crowd DSN

It dies at the point that FLOWRUN_CRASH_AT names, if that is set.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from flowrun import Flowrun


def make_app(dsn: str) -> Flowrun:
    app = Flowrun(dsn, lease=2.0, poll=1.0)

    @app.handler
    async def tick(seconds: float = 0.0) -> None:
        await asyncio.sleep(seconds)

    return app


async def main(dsn: str) -> None:
    app = make_app(dsn)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(app.worker(concurrency=8))
        print("working", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
