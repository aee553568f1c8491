"""A program of the version before: ``python before.py DSN``, with that version on its path.

It works until its input ends; a line of input is a flow to be dispatched, of which it prints the id.
"""

from __future__ import annotations

import asyncio
import sys

import flowrun
from flowrun import Flowrun

app = Flowrun(sys.argv[1], poll=0.2, lease=4.0)


@app.handler(attempts=3)
async def add(n: int, more: object = None) -> int:
    return n + 1


@app.handler(attempts=2, backoff=flowrun.backoff.constant(0.01))
async def breaks(always: bool) -> str:
    if always or not seen:
        seen.append(1)
        raise ValueError("broken")
    return "mended"


@app.handler
async def items(n: int) -> list[int]:
    return list(range(n))


seen: list[int] = []


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with app, app.worker(concurrency=4):
        print("works", flowrun.__file__, flush=True)
        while await reader.readline():
            flow = app.flow("of the version before", tags=["old"])
            first = flow.add(add.job(n=1), name="first")
            broken = flow.add(breaks.job(always=True), after=first, name="broken", optional=True)
            flow.add(add.job(n=first.result), after=broken.finished, name="last")
            print((await flow.dispatch()).id, flush=True)


asyncio.run(main())
