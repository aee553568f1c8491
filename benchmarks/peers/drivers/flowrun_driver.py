"""flowrun, as a user runs it: by its public names, `uvloop` if installed, concurrency 100."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from slot import PAUSE, WARM_UP, Slot, asked, now

from benchmarks import servers
from flowrun import Flowrun

DSN = os.environ["DSN"]
PART = 10_000


def build(slot: Slot | None) -> Flowrun:
    """The app; without a slot its handlers are only names."""
    app = Flowrun(DSN)

    @app.handler("noop")
    async def noop() -> None:
        slot.hit()

    @app.handler("late")
    async def late(sent: int) -> None:
        slot.hit(sent)

    @app.handler("last")
    async def last() -> None:
        slot.hit()
        slot.end()

    @app.handler("join")
    async def join() -> None:
        slot.end()

    return app


async def dispatch(app: Flowrun, jobs: int) -> None:
    """In bulk; prints the seconds."""
    start = now()
    for at in range(0, jobs, PART):
        await app.dispatch_many([app.job("noop") for _ in range(min(PART, jobs - at))])
    print((now() - start) / 1e9)


async def latency(app: Flowrun, jobs: int, gap: int) -> None:
    """One by one."""
    for _ in range(jobs):
        await app.job("late", {"sent": now()}).dispatch()
        await asyncio.sleep(gap / 1e3)


async def chains(app: Flowrun, number: int, length: int) -> None:
    """Chains side by side in one flow; prints when its writing began."""
    start = now()
    flow = app.flow("chains")
    for _ in range(number):
        flow.chain(*[app.job("noop") for _ in range(length - 1)], app.job("last"))
    await flow.dispatch()
    print(start)


async def fan(app: Flowrun, width: int) -> None:
    """1 -> width -> 1."""
    start = now()
    flow = app.flow("fan")
    root = flow.add(app.job("noop"))
    flow.add(app.job("join"), after=[flow.add(app.job("noop"), after=root) for _ in range(width)])
    await flow.dispatch()
    print(start)


async def main() -> None:
    """Do what is asked."""
    verb, numbers = asked()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(build(Slot() if verb == "worker" else None))
        if verb == "setup":
            await app.migrate()
        elif verb == "worker":
            await stack.enter_async_context(app.worker(concurrency=100))
            print("READY", flush=True)
            await servers.terminated()
        else:
            if verb in {"chains", "fan"}:
                await chains(app, *WARM_UP)
                await asyncio.sleep(PAUSE)
            await {"dispatch": dispatch, "latency": latency, "chains": chains, "fan": fan}[verb](app, *numbers)


servers.run(main())
