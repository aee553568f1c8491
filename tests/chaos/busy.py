"""A program with a pool and a worker in use, for tests that take its server away. Runs until its stdin ends."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress

from flowrun import Flowrun, FlowrunError, Job


async def main(dsn: str) -> None:
    app = Flowrun(dsn, lease=5.0, poll=0.5, pool_size=6)
    done = 0

    @app.handler(attempts=100)
    async def work(job: Job, n: int) -> int:
        nonlocal done
        await job.progress(0.5)
        async with job.transaction() as tx:
            await tx.connection.execute("select pg_sleep(0.01)")
            await tx.complete(n)
        done += 1
        return n

    @app.handler(attempts=100)
    async def plain(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    async def dispatch() -> None:
        while True:
            with suppress(FlowrunError, OSError):
                run = await app.job("work", {"n": 1}).dispatch()
                await (await app.group(plain.job(n=1), plain.job(n=2)).dispatch()).status()
                await run.result(timeout=5)
            await asyncio.sleep(0.01)

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with app.worker(concurrency=8):
        tasks = [asyncio.create_task(dispatch()) for _ in range(8)]
        print("ready", flush=True)
        while line := await reader.readline():
            before = done
            while line == b"work\n" and done < before + 20:
                await asyncio.sleep(0.01)
            gc.collect()
            print("done", flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(sys.argv[1]))
