"""The handlers of all programs of a run. Each writes down when it began, what it was given, and when it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from flowrun import ConfigurationError, Flow, Flowrun, Job, JobError, backoff
from tests.chaos import computing, misbehaving
from tests.chaos.journal import Journal
from tests.model import playing, wild
from tests.model.playing import Playground

_runs = count()

TABLES = """
create schema if not exists chaos;
create table if not exists chaos.effects (job uuid not null, attempt integer not null);
create table if not exists chaos.orders (number bigint primary key);
create sequence if not exists chaos.refusals;
create or replace function chaos.refuse() returns trigger language plpgsql as $$
begin
    perform nextval('chaos.refusals');
    raise exception 'refused by chaos' using errcode = tg_argv[0];
end $$;
"""
"""What handlers and dispatchers write themselves, in transactions with flowrun's writes."""


class Mended:
    """The varied flows that have been retried: what failed in them does well from now on. A file each."""

    def __init__(self, place: Path) -> None:
        self._place = place
        place.mkdir(exist_ok=True)

    def add(self, number: int) -> None:
        (self._place / str(number)).touch()

    def __contains__(self, number: object) -> bool:
        return (self._place / str(number)).exists()


class Undoing:
    """Receives what the handlers of varied flows undo."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getitem__(self, flow: int) -> Undoing:
        return self

    def append(self, what: tuple[str, str]) -> None:
        """Nothing: the journal has the attempt's begin and end."""


class Troupe:
    """An app whose handlers get other type names, and write down their beginnings and ends."""

    def __init__(self, app: Flowrun, journal: Journal, prefix: str) -> None:
        self._app = app
        self._journal = journal
        self._prefix = prefix

    def flow(self, name: str, **options: Any) -> Flow:
        return self._app.flow(name, **options)

    def job(self, type: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        return self._app.job(self._prefix + type, arguments or {}, **options)

    def handler(self, type: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        def register(function: Callable[..., Any]) -> Any:
            return self._app.handler(self._prefix + type, **options)(told(self._journal, function))

        return register


def told(journal: Journal, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, written down. It takes a parameter ``job``, and others by name."""

    @wraps(function)
    async def run(*args: Any, **given: Any) -> Any:
        job: Job = given["job"] if "job" in given else args[0]
        about = {"job": str(job.id), "n": job.attempt, "name": job.name, "run": next(_runs)}
        number = given.get("number", given.get("flow"))
        journal.write("start", **about, type=job.type, number=number, part=given.get("name"), given=given.get("given"))
        more: dict[str, Any] = {}
        try:
            value = await function(*args, **given)
        except asyncio.CancelledError:
            more = {"how": "cancelled"}
            raise
        except BaseException as error:
            more = {"how": repr(error)}
            raise
        else:
            more = {"how": "returned", "token": value.get("token") if isinstance(value, dict) else None}
            return value
        finally:
            journal.write("end", **about, **more)

    return run


def register(app: Flowrun, journal: Journal, place: Path) -> None:
    """All handlers. ``place``: where the run keeps what its processes share."""
    stage = Playground([Troupe(app, journal, "varied-")], None)  # type: ignore[list-item, arg-type]
    stage.runs = Counter()
    stage.mended = Mended(place / "mended")  # type: ignore[assignment]
    stage.undoing = Undoing(journal)  # type: ignore[assignment]
    playing.register(Troupe(app, journal, "varied-"), stage)  # type: ignore[arg-type]
    wild.register(Troupe(app, journal, "wild-"))  # type: ignore[arg-type]
    _relays(app, journal)
    _singles(app, journal)
    _failing(app, journal)
    misbehaving.register(app, journal, told)
    with contextlib.suppress(ConfigurationError, TypeError):  # an older version has no processes
        app.handler("compute", process=True, attempts=40, timeout=computing.TIMEOUT, backoff=backoff.constant(0.05))(
            computing.compute
        )


def _relays(app: Flowrun, journal: Journal) -> None:
    @app.handler("relay", attempts=4, backoff=backoff.constant(0.0))
    @partial(told, journal)
    async def relay(job: Job, number: int, given: list[Any], pause: float = 0.0, fails: int = 0) -> dict[str, Any]:
        if pause:
            await asyncio.sleep(pause)
        if job.attempt <= fails:
            raise ValueError("as written")
        return {"token": _token(job)}


def _token(job: Job) -> str:
    return f"{job.id} {job.attempt} {uuid4().hex[:8]}"


def _singles(app: Flowrun, journal: Journal) -> None:
    @app.handler("narrow", attempts=4, backoff=backoff.constant(0.0))
    @partial(told, journal)
    async def narrow(job: Job, number: int, key: str, pause: float) -> None:
        await asyncio.sleep(pause)

    @app.handler("remembering", attempts=4, backoff=backoff.constant(0.05))
    @partial(told, journal)
    async def remembering(job: Job, number: int) -> dict[str, Any]:
        async def once() -> str:
            return uuid4().hex

        value = await job.step("once", once)
        journal.write("remembered", job=str(job.id), value=value)
        await asyncio.sleep(0.02)
        again = await job.step("once", once)
        assert value == again
        return {"token": _token(job)}

    @app.handler("atomic", attempts=8, backoff=backoff.constant(0.05))
    @partial(told, journal)
    async def atomic(job: Job, number: int) -> None:
        async with job.transaction() as tx:
            await tx.connection.execute("insert into chaos.effects (job, attempt) values ($1, $2)", job.id, job.attempt)
            await asyncio.sleep(0.01)
            await app.job("follower", {"number": number, "by": str(job.id)}).dispatch()
            await tx.complete({"token": _token(job)})

    @app.handler("leading", attempts=4, backoff=backoff.constant(0.05))
    @partial(told, journal)
    async def leading(job: Job, number: int) -> None:
        await app.job("follower", {"number": number, "by": str(job.id)}).dispatch()
        await asyncio.sleep(0.01)
        if job.attempt == 1 and number % 3 == 0:
            raise ValueError("as written")

    @app.handler("tick", attempts=4)
    @partial(told, journal)
    async def tick(job: Job, number: int, pause: float = 0.0) -> None:
        await asyncio.sleep(pause)

    @app.handler("debounced", attempts=4)
    @partial(told, journal)
    async def debounced(job: Job, number: int) -> None: ...

    @app.handler("throttled", attempts=4)
    @partial(told, journal)
    async def throttled(job: Job, number: int) -> None: ...

    @app.handler("follower", attempts=4)
    @partial(told, journal)
    async def follower(job: Job, number: int, by: str) -> None: ...

    @app.handler("hanging", attempts=4)
    @partial(told, journal)
    async def hanging(job: Job, number: int) -> None:
        await asyncio.sleep(3600)

    @app.handler("blocking", attempts=4)
    @partial(told, journal)
    async def blocking(job: Job, number: int, seconds: float) -> None:
        journal.write("blocks", seconds=seconds)
        time.sleep(seconds)

    @app.handler("killing", attempts=4)
    @partial(told, journal)
    async def killing(job: Job, number: int) -> None:
        if job.attempt <= 2:
            journal.write("kills itself", job=str(job.id))
            os.kill(os.getpid(), signal.SIGKILL)

    @app.handler("probe", attempts=4)
    @partial(told, journal)
    async def probe(job: Job, number: int) -> None: ...


def _failing(app: Flowrun, journal: Journal) -> None:
    """What fails for good calls another job, once; a hook that raises changes nothing."""

    @app.handler("failing", attempts=2, backoff=backoff.constant(0.05))
    @partial(told, journal)
    async def failing(job: Job, number: int) -> None:
        if number % 3 or job.attempt == 1:
            raise ValueError("as written")

    @failing.on_failure
    async def sorry(job: Job, error: JobError) -> None:
        journal.write("sorry", job=str(job.id), of=error.args["number"])

    @app.on("job_failed")
    def hook(event: Any) -> None:
        if event.job is not None and event.job.type == "failing":
            raise RuntimeError("a hook that raises")


def errors() -> tuple[type[Exception], ...]:
    """What a dispatch or a verb may raise while the database is away."""
    from flowrun import FlowrunError

    return (FlowrunError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
