"""A worker of a run: ``python -m tests.chaos.worker SETTINGS``, these being JSON. See :class:`Settings`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID


@dataclass
class Settings:
    """What a program of a run is told."""

    name: str
    dsn: str
    place: str
    """The run's directory."""
    listen_dsn: str | None = None
    pooler: bool = False
    old: str | None = None
    """Where another version of flowrun is, to be used instead of this one."""
    skew: float = 0.0
    """Seconds by which this process's clock is wrong."""
    drift: float = 1.0
    """How fast it goes."""
    seed: int = 0
    number: int = 0
    rate: float = 1.0
    plant: str | None = None
    step_back: bool = False
    """The moment it is for schedules goes back again and again."""

    def text(self) -> str:
        return json.dumps(asdict(self))


LEASE = 3.0
CRASHES = 7
"""As often a job may be lost: more often than faults meet one that is tried apart, so that only what kills is given up."""
OPTIONS: dict[str, Any] = {"lease": LEASE, "poll": 0.7, "crash_limit": CRASHES}
PROCESSES = 2
"""For handlers with ``process=True``."""


def skew_clock(settings: Settings) -> None:
    """This process believes in another time from now on; its monotonic clock stays right."""
    if not settings.skew and settings.drift == 1.0:
        return
    right, begun = time.time, time.time()

    def wrong() -> float:
        return right() + settings.skew + (right() - begun) * (settings.drift - 1.0)

    last = 0

    def uuid7() -> UUID:
        nonlocal last
        last = max(last + 1, (int(wrong() * 1000) << 16) + secrets.randbits(8))
        head, tail = last >> 16, last & 0xFFFF
        value = head << 80 | 7 << 76 | (tail >> 4) << 64 | 2 << 62 | (tail & 15) << 58 | secrets.randbits(58)
        return UUID(int=value)

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)
    from flowrun import mint

    mint.uuid7 = uuid7


def hurry() -> None:
    """Statements and lock waits that take long are cut: sooner than anybody would want, so that it happens."""
    from flowrun.store import pool
    from tests.chaos import pruning

    getattr(pool, "SESSION", {}).update(lock_timeout="1s", statement_timeout="2s")
    pruning.hurry()
    with contextlib.suppress(ImportError):  # an older version has none
        from flowrun.store import link

        link.PATIENCE = 5.0


def run_on() -> None:
    """As a worker that was started before the migration: it does not look at the schema any more."""
    from flowrun.store import migrate

    async def verify(*_: object) -> None: ...

    migrate.verify = verify  # type: ignore[assignment]


def share_name(name: str) -> None:
    """As in containers: whoever takes this one's place has its name, and so has one that is started too often."""
    from types import SimpleNamespace

    from flowrun.worker import session

    session.socket = SimpleNamespace(gethostname=lambda: name)  # type: ignore[assignment]
    session.os = SimpleNamespace(**{**vars(os), "getpid": lambda: 1})  # type: ignore[assignment]


def begin() -> Settings:
    """Read the settings, choose the version of flowrun, set the clock."""
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.old:
        sys.path.insert(0, settings.old)
    logging.basicConfig(level=logging.WARNING, format=f"%(relativeCreated)d {settings.name} %(name)s %(message)s")
    skew_clock(settings)
    hurry()
    share_name(settings.name)
    if settings.old:
        run_on()
    if settings.plant:
        from tests.chaos import plants

        plants.plant(settings.plant)
    return settings


async def main(settings: Settings) -> None:
    from flowrun import Flowrun
    from tests.chaos import handlers, misbehaving, pruning, ticking
    from tests.chaos.journal import Journal

    place = Path(settings.place)
    more = {} if settings.old else {"processes": PROCESSES}
    app = Flowrun(settings.dsn, pooler=settings.pooler, listen_dsn=settings.listen_dsn, **OPTIONS, **more)
    with contextlib.suppress(AttributeError):  # an older version keeps all
        app.retention(pruning.KEPT)
    if settings.step_back:
        ticking.step_back(app.client)
    journal = Journal(place / f"{settings.name}.{os.getpid()}.journal")
    handlers.register(app, journal, place)
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    task.set_name(misbehaving.PROGRAM)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while True:
        try:
            async with app:
                async with app.worker(concurrency=8, queues=["default", f"only-{settings.name}"], grace=1.0) as worker:
                    journal.write("works", old=bool(settings.old), skew=settings.skew)
                    ended = asyncio.create_task(worker.ended(), name=misbehaving.PROGRAM)
                    stopped = asyncio.create_task(stop.wait(), name=misbehaving.PROGRAM)
                    await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
                    journal.write("stops", asked=stop.is_set())
            return
        except handlers.errors() as error:
            if stop.is_set():
                return
            journal.write("cannot start", error=repr(error))
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(begin()))
