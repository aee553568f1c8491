"""One job: written to PostgreSQL, run by a worker, its result awaited. Run it: `python 01_hello.py`.

Without FLOWRUN_DSN flowrun starts a PostgreSQL of its own. With one of yours, run `flowrun migrate` first.
"""

from __future__ import annotations

import asyncio

from flowrun import Flowrun, Job, backoff

app = Flowrun()


@app.handler(attempts=3, backoff=backoff.constant(0.2))
async def greet(job: Job, name: str) -> str:
    if job.attempt == 1:
        raise ConnectionError("the first attempt fails; the job runs again after its backoff")
    return f"Hello, {name}! (attempt {job.attempt} of {job.attempts})"


async def main() -> None:
    async with app.worker():  # or in another process: `flowrun serve 01_hello:app`
        run = await greet.dispatch(name="world")  # committed when this returns: a crash does not lose it
        print(await run.result(timeout=30))


if __name__ == "__main__":
    asyncio.run(main())
