"""The dispatcher of a run: ``python -m tests.chaos.dispatcher SETTINGS``. Writes down what it wants and what was done."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from flowrun import FlowRun, Flowrun
from tests.chaos import flows, handlers
from tests.chaos.handlers import Mended, Troupe
from tests.chaos.journal import Journal
from tests.chaos.worker import OPTIONS, Settings, begin
from tests.model import varied
from tests.model.wild import act

AT_ONCE = 60
"""Things under way at the same time in this process."""


class Dispatcher:
    def __init__(self, app: Flowrun, journal: Journal, settings: Settings) -> None:
        self._app = app
        self._journal = journal
        self._random = Random(f"{settings.seed} {settings.number}")
        self._mended = Mended(Path(settings.place) / "mended")
        self._rate = settings.rate
        self._next = (settings.seed * 1000 + settings.number) * 100_000
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if len(self._under_way) < AT_ONCE:
                self._next += 1
                kind = self._random.choices(list(flows.KINDS), list(flows.KINDS.values()))[0]
                task = asyncio.create_task(self._one(kind, self._next))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(self._random.expovariate(self._rate))
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=2.0)

    async def _one(self, kind: str, number: int) -> None:
        try:
            await self._intend(kind, number)
        except Exception as error:
            self._journal.write("unexpected", kind=kind, number=number, error=repr(error)[:1000])

    async def _intend(self, kind: str, number: int) -> None:
        self._journal.write("intent", kind=kind, number=number)
        try:
            run = await self._dispatch(kind, number)
        except handlers.errors() as error:
            self._journal.write("refused", kind=kind, number=number, error=repr(error)[:300])
            return
        if run is not None:
            self._journal.write("ack", kind=kind, number=number, id=str(run.id))
            await self._follow(kind, number, run)

    async def _dispatch(self, kind: str, number: int) -> Any:
        app = self._app
        if kind == "varied":
            return await flows.varied_flow(app, self._journal, number).dispatch()
        if kind == "wild":
            return await flows.wild_one(app, self._journal, number).dispatch()
        if kind == "relay":
            return await flows.relay_flow(app, number).dispatch()
        if kind == "keyed":
            runs = await asyncio.gather(
                *(flows.single(app, kind, number).dispatch() for _ in range(3)), return_exceptions=True
            )
            well = [run for run in runs if not isinstance(run, BaseException)]
            if not well:
                raise next(run for run in runs if isinstance(run, Exception))
            self._journal.write("keyed", number=number, ids=[str(run.id) for run in well])
            return well[0]
        if kind == "bought":
            return await self._buy(number)
        return await flows.single(app, kind, number).dispatch()

    async def _buy(self, number: int) -> Any:
        """A dispatch in the transaction of a purchase, every third of which is rolled back."""
        async with self._app.client.database.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute("insert into chaos.orders (number) values ($1)", number)
                run = await flows.single(self._app, "bought", number).dispatch(tx=connection)
                if number % 3 == 0:
                    await transaction.rollback()
                    self._journal.write("rolled back", number=number)
                    return None
                await transaction.commit()
            except BaseException:
                connection.terminate()
                raise
            return run

    async def _follow(self, kind: str, number: int, run: Any) -> None:
        if kind == "varied":
            await self._play(number, run)
        elif kind == "wild":
            await self._meddle(number, run)
        elif kind == "hanging":
            await asyncio.sleep(Random(number).choice([0.0, 0.1, 0.5, 2.0]))
            if await self._insist(run.cancel):
                self._journal.write("cancelled", number=number, id=str(run.id))
        elif number % 4 == 0:
            await self._wait(number, run)

    async def _play(self, number: int, run: FlowRun) -> None:
        written = flows.varied(number)
        for name, step in varied.walk(written.steps):
            if step.kind == "gate" and step.do == "signal":
                await self._insist(lambda name=name, step=step: run.signal(name, step.answer))
            if step.kind == "race" and step.racers[0] == "gate":
                await self._insist(lambda name=name: run.signal(f"{name}-a", "yes"))
        if written.again and await self._wait(number, run) == "failed":
            self._mended.add(number)
            if await self._insist(run.retry):
                self._journal.write("retried", number=number)
                await self._wait(number, run)

    async def _meddle(self, number: int, run: FlowRun) -> None:
        random = Random(number)
        for _ in range(random.choice([0, 0, 1, 2, 3])):
            await asyncio.sleep(random.choice([0.0, 0.01, 0.1, 1.0]) * random.random())
            try:
                name = random.choice(sorted((await run.status()).nodes))
                more = act(Troupe(self._app, self._journal, "wild-"), "well")  # type: ignore[arg-type]
                verbs: list[Callable[[], Awaitable[Any]]] = [
                    lambda: run.cancel(compensate=number % 3 > 0),
                    lambda name=name: run[name].cancel(),
                    run.retry,
                    lambda name=name: run[name].retry(),
                    lambda name=name: run.resolve(name, {"n": 1}),
                    lambda name=name: run.skip(name),
                    lambda: run.signal("go", "yes"),
                    lambda name=name, more=more: run.add(more, after=random.choice([None, name])),
                ]
                await random.choice(verbs)()
            except handlers.errors():
                continue
        await self._insist(lambda: run.signal("go", "yes"))

    async def _wait(self, number: int, run: Any) -> str | None:
        begun = time.monotonic()
        try:
            status = await run.wait(timeout=60)
        except handlers.errors() as error:
            self._journal.write("waited in vain", number=number, error=repr(error)[:200])
            return None
        self._journal.write("waited", number=number, seconds=time.monotonic() - begun, state=status.state)
        return str(status.state)

    async def _insist(self, verb: Callable[[], Awaitable[Any]]) -> bool:
        """Do it, also when the database is away for a while."""
        for _ in range(40):
            try:
                await verb()
            except handlers.errors():
                await asyncio.sleep(0.25)
            else:
                return True
        return False


async def main(settings: Settings) -> None:
    app = Flowrun(settings.dsn, pooler=settings.pooler, listen_dsn=settings.listen_dsn, **OPTIONS)
    journal = Journal(Path(settings.place) / f"{settings.name}.{os.getpid()}.journal")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while not stop.is_set():
        try:
            async with app:
                await Dispatcher(app, journal, settings).run(stop)
        except handlers.errors() as error:
            journal.write("cannot start", error=repr(error))
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(begin()))
