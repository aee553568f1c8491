"""The operators of a run: ``python -m tests.chaos.operator SETTINGS``. Several clients do all verbs to the same few flows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

from flowrun import FlowRun, Flowrun
from tests.chaos import handlers, pruning
from tests.chaos.journal import Journal
from tests.chaos.worker import OPTIONS, Settings, begin

CLIENTS = 4
RECENT = 3
"""Of so many flows, the last ones, one is chosen: so that the clients meet."""
FLOWS = """
select id from flowrun.flows where id = root_id and name like 'wild %' order by id desc limit $1
"""


class Operator:
    """One client."""

    def __init__(self, app: Flowrun, journal: Journal, random: Random) -> None:
        self._app = app
        self._journal = journal
        self._random = random

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            name, did = "nothing", None
            try:
                name, verb = await self._choose()
                did = await verb()
            except handlers.errors() as error:
                self._journal.write("refused verb", verb=name, error=type(error).__name__)
            except Exception as error:
                self._journal.write("unexpected", kind=name, error=repr(error)[:1000])
            else:
                self._journal.write("verb", verb=name, did=str(did)[:100])
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._random.uniform(0.1, 0.5))

    async def _choose(self) -> tuple[str, Callable[[], Awaitable[Any]]]:
        app, random = self._app, self._random
        if random.random() < 0.1:
            return "prune", app.prune
        if random.random() < 0.1:
            return "prune of a type", lambda: app.prune(older_than=pruning.BRIEF, type="narrow")
        async with app.client.database.acquire() as connection:
            ids = [row[0] for row in await connection.fetch(FLOWS, RECENT)]
        if not ids:
            return "prune", app.prune
        run = await app.get_flow(random.choice(ids))
        node = random.choice(sorted((await run.status()).nodes))
        if random.random() < 0.3:
            await self._nearly_ended(run)
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "add": lambda: run.add(app.job("wild-act"), name=f"added {random.randrange(1000)}"),
            "cancel": lambda: run.cancel(compensate=random.random() < 0.7),
            "cancel node": lambda: run[node].cancel(),
            "retry": run.retry,
            "retry node": lambda: run[node].retry(),
            "resolve": lambda: run.resolve(node, {"n": 1}),
            "skip": lambda: run.skip(node),
            "signal": lambda: run.signal("go", "yes"),
        }
        name = random.choice(list(verbs))
        return name, verbs[name]

    async def _nearly_ended(self, run: FlowRun) -> None:
        """Wait for the moment in which the flow's last node has ended, or is about to: verbs meet its end there."""
        for _ in range(40):
            status = await run.status()
            if sum(node.finished_at is None for node in status.nodes.values()) <= 1:
                return
            await asyncio.sleep(0.02)


async def main(settings: Settings) -> None:
    journal = Journal(Path(settings.place) / f"{settings.name}.{os.getpid()}.journal")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while not stop.is_set():
        try:
            async with AsyncExitStack() as stack:
                apps = [
                    await stack.enter_async_context(
                        Flowrun(
                            settings.dsn, pooler=settings.pooler, listen_dsn=settings.listen_dsn, pool_size=2, **OPTIONS
                        )
                    )
                    for _ in range(CLIENTS)
                ]
                await asyncio.gather(
                    *(
                        Operator(app, journal, Random(f"{settings.seed} {settings.number} {n}")).run(stop)
                        for n, app in enumerate(apps)
                    )
                )
        except handlers.errors() as error:
            journal.write("cannot start", error=repr(error))
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(begin()))
