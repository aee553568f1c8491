"""Flows in a rush, many at a time on several workers, with people meddling: loads under which nobody may deadlock.

``python -m tests.flows.rush --flows 2000`` plays each, and says how many deadlocks the server counted and how fast it went.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from flowrun import Flowrun, FlowrunError, Job, any_of, at_least, race
from flowrun.testing import databases


@dataclass
class Rush:
    """A load, on apps of one database."""

    apps: list[Flowrun]
    seed: int
    slowest: float = 0.0
    """Seconds that the slowest verb took."""
    verbs: int = 0
    states: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def app(self) -> Flowrun:
        return self.apps[0]

    async def verb(self, what: Awaitable[Any]) -> None:
        begun = time.monotonic()
        with suppress(FlowrunError):
            await what
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.verbs += 1


def _handlers(app: Flowrun, ledger: bool) -> None:
    @app.handler(attempts=1)
    async def quick(seconds: float = 0.0) -> int:
        if seconds:
            await asyncio.sleep(seconds)
        return 1

    @app.handler(attempts=3, backoff=lambda attempt: 0.01)
    async def flaky(job: Job, until: int = 2) -> int:
        if job.attempt < until:
            raise RuntimeError("not yet")
        return job.attempt

    @app.handler(attempts=1)
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.handler(attempts=2)
    async def pay(job: Job, account: int = 0) -> int:
        async with job.transaction() as tx:
            await tx.connection.execute("update account set amount = amount + 1 where id = $1", account)
            await tx.complete(account)
        return account

    @app.handler(attempts=1)
    async def again(keys: list[str], own: bool) -> None:
        for key in keys:
            await app.job("quick").options(key=key, on_conflict="replace").dispatch()
        if own:
            await app.job("again", {"keys": keys, "own": False}).options(key=keys[0], on_conflict="replace").dispatch()


async def cancels(rush: Rush, random: random.Random) -> str:
    """Twelve jobs, of which somebody cancels some, or all."""
    app = rush.app
    flow = app.flow("cancels")
    nodes: list[Any] = []
    for at in range(12):
        after = random.sample(nodes, min(len(nodes), random.randint(0, 3)))
        nodes.append(
            flow.add(app.job("quick", {"seconds": random.choice([0.0, 0.0, 0.005])}), name=f"n{at}", after=after)
        )
    run = await flow.dispatch()
    await asyncio.sleep(random.uniform(0.0, 0.05))
    await rush.verb(run.cancel() if random.random() < 0.7 else run[f"n{random.randrange(12)}"].cancel())
    return (await run.wait(timeout=60)).state


async def races(rush: Rush, random: random.Random) -> str:
    """Six race, twice; what loses is cancelled in the commit in which another wins."""
    app = rush.app
    flow = app.flow("races")
    before = None
    for turn in range(2):
        racers = [
            flow.add(
                app.job("quick", {"seconds": random.choice([0.0, 0.003, 0.02])}),
                name=f"r{turn}-{at}",
                after=before or [],
            )
            for at in range(6)
        ]
        before = flow.add(app.job("quick"), name=f"won{turn}", after=race(*racers))
    return (await (await flow.dispatch()).wait(timeout=60)).state


async def joins(rush: Rush, random: random.Random) -> str:
    """Layers joined in every way."""
    app = rush.app
    flow = app.flow("joins")
    layer = [flow.add(app.job("quick"), name=f"0-{at}") for at in range(5)]
    for depth in range(1, 4):
        more = []
        for at in range(5):
            some = random.sample(layer, 3)
            after = random.choice(
                [
                    some,
                    any_of(*some),
                    at_least(2, *some),
                    race(*some[:2]),
                    [some[0].finished, some[1]],
                    [some[0].failed],
                ]
            )
            kind = random.choice(["quick", "quick", "broken"])
            more.append(flow.add(app.job(kind).options(optional=kind == "broken"), name=f"{depth}-{at}", after=after))
        layer = more
    return (await (await flow.dispatch()).wait(timeout=60)).state


async def retries(rush: Rush, random: random.Random) -> str:
    """Attempts fail, jobs fail, flows are run again, while others go on."""
    app = rush.app
    flow = app.flow("retries")
    first = [flow.add(app.job("flaky", {"until": random.randint(1, 3)}), name=f"f{at}") for at in range(4)]
    bad = flow.add(app.job(random.choice(["broken", "quick"])), name="bad", after=first[:2])
    flow.add(app.job("quick"), name="after", after=[bad, first[3]])
    flow.add(app.job("quick", {"seconds": 0.01}), name="aside", after=first[2])
    flow.add(app.job("quick"), name="sorry", after=bad.failed)
    run = await flow.dispatch()
    await asyncio.sleep(random.uniform(0.0, 0.06))
    await rush.verb(random.choice([run.retry, run.cancel, partial(run.skip, "bad"), partial(run.resolve, "bad", 1)])())
    await rush.verb(run.retry())
    return (await run.wait(timeout=60)).state


async def transactions(rush: Rush, random: random.Random) -> str:
    """Handlers that settle their job themselves, in a transaction in which they write what others write."""
    app = rush.app
    flow = app.flow("transactions")
    first = [flow.add(app.job("pay", {"account": random.randrange(200)}), name=f"p{at}") for at in range(5)]
    second = [
        flow.add(app.job("pay", {"account": random.randrange(200)}), name=f"q{at}", after=random.sample(first, 2))
        for at in range(5)
    ]
    flow.add(app.job("quick"), name="last", after=[*second, race(*first[:2])] if random.random() < 0.3 else second)
    run = await flow.dispatch()
    if random.random() < 0.3:
        await asyncio.sleep(random.uniform(0.0, 0.05))
        await rush.verb(run.cancel())
    return (await run.wait(timeout=60)).state


async def keys(rush: Rush, random: random.Random) -> str:
    """Jobs under few keys, replaced by dispatchers and by handlers that take the keys in any order."""
    app = rush.app
    names = [f"key {at}" for at in range(6)]
    dispatched = [
        app.job("quick").options(
            key=name, on_conflict=random.choice(["replace", "existing"]), delay=random.choice([0, 0.05])
        )
        for name in random.sample(names, 4)
    ]
    await rush.verb(app.dispatch_many(dispatched))
    flow = app.flow("keys")
    first = [
        flow.add(app.job("again", {"keys": random.sample(names, 4), "own": True}), name=f"a{at}") for at in range(3)
    ]
    flow.add(app.job("quick"), name="last", after=first)
    return (await (await flow.dispatch()).wait(timeout=60)).state


LOADS: dict[str, Callable[[Rush, random.Random], Awaitable[str]]] = {
    "cancels": cancels,
    "races": races,
    "joins": joins,
    "retries": retries,
    "transactions": transactions,
    "keys": keys,
}


async def play(
    dsn: str, load: str, *, flows: int, workers: int = 2, at_once: int = 8, seed: int = 1, concurrency: int = 20
) -> Rush:
    """Play ``flows`` flows of a load, ``at_once`` at a time."""
    apps = [Flowrun(dsn) for _ in range(workers)]
    rush = Rush(apps, seed)
    for app in apps:
        _handlers(app, True)
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table if not exists account (id integer primary key, amount integer not null)")
    await connection.execute("insert into account select n, 0 from generate_series(0, 199) n on conflict do nothing")
    await connection.close()
    numbers = iter(range(flows))

    async def some() -> None:
        for number in numbers:
            state = await LOADS[load](rush, random.Random(f"{seed} {number}"))
            rush.states[state] = rush.states.get(state, 0) + 1

    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app)
            await stack.enter_async_context(app.worker(concurrency=concurrency))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(some())
    return rush


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("loads", nargs="*", default=list(LOADS))
    given = parser.parse_args()
    with databases.server(None) as server:
        template = await databases.template(server)
        for load in given.loads:
            dsn = await databases.create(server, template)
            begun = time.monotonic()
            rush = await play(
                dsn, load, flows=given.flows, workers=given.workers, at_once=given.at_once, seed=given.seed
            )
            took = time.monotonic() - begun
            connection = await asyncpg.connect(server)
            await asyncio.sleep(1.5)
            count = await connection.fetchval(
                "select deadlocks from pg_stat_database where datname = $1", unquote(urlsplit(dsn).path.lstrip("/"))
            )
            await connection.close()
            print(
                f"{load}: {count} deadlocks; {given.flows / took:.1f} flows/s; slowest of {rush.verbs} verbs"
                f" {rush.slowest:.2f} s; {rush.states}",
                flush=True,
            )
            await databases.drop(server, dsn)


if __name__ == "__main__":
    asyncio.run(_main())
