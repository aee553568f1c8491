"""Errors of the server that nobody foresaw end no worker and none of its loops: they are told, and tried until it is over.

A trigger that raises stands for them: out of memory, a full disk, a revoked right, a broken extension, a statement that
somebody cancels. It raises at every statement on one table, of each kind, table by table, while one worker lives on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from flowrun import Flowrun, Job, Snooze, backoff
from flowrun.client import troubles

pytestmark = pytest.mark.timeout(600)

Until = Callable[..., Awaitable[None]]

STATES = cycle(["53200", "XX000", "57014", "P0001", "42883", "58030", "42P01"])
"""Out of memory, internal error, cancelled, raised by a trigger, a function that is missing, I/O, a table."""
WORDS = "nobody foresaw this"
HELD = 0.7
"""Seconds that a trigger raises, once it has."""
MISSED, LONGER = 0.4, 3.0
"""Seconds after which nothing has met it; where a worker has to."""
HANDLERS = {"steps", "progress"}
"""Tables that only handlers write: they are told themselves."""


def make(dsn: str, **options: Any) -> Flowrun:
    """An app whose jobs use everything that a worker does by itself."""
    app = Flowrun(dsn, lease=4.0, poll=0.3, **options)

    @app.handler(attempts=50, backoff=backoff.constant(0.05))
    async def work(job: Job, n: int, fail: bool = False) -> int:
        if fail and job.attempt == 1:
            raise ValueError("the first attempt")
        await job.step("twice", _twice, n)
        return n

    @app.handler(attempts=50, backoff=backoff.constant(0.05))
    async def dispatching(n: int) -> int:
        await app.job("work", {"n": n}).dispatch()
        return n

    @app.handler(attempts=50)
    async def later(job: Job) -> None:
        if job.attempt == 1 and not await job.step("seen", _twice, 0):
            await job.step("seen again", _twice, 1)
        if len(_snoozed) < 1 or job.id not in _snoozed:
            _snoozed.add(job.id)
            raise Snooze(0.05)

    return app


_snoozed: set[Any] = set()


async def _twice(n: int) -> int:
    return 2 * n


async def dispatch(app: Flowrun) -> list[Any]:
    """A bit of everything: a flow with a join and a timer, what fails, is limited, comes later, is cancelled in time."""
    flow = app.flow("all", deadline=600.0)
    first = flow.group(
        app.job("work", {"n": 1}), app.job("work", {"n": 2, "fail": True}), app.job("dispatching", {"n": 3})
    )
    flow.sleep(0.05, after=first)
    flow.add(app.job("work", {"n": 4}), after=first, name="join")
    late = app.flow("late", deadline=0.2)
    late.wait_for("never")
    return [
        await flow.dispatch(),
        await late.dispatch(),
        await app.job("work", {"n": 5}, limit=("few", 1)).dispatch(),
        await app.job("work", {"n": 6}, sequence="one").dispatch(),
        await app.job("later", delay=0.1).dispatch(),
        await app.job("dispatching", {"n": 7}, key=f"key-{id(flow)}", key_ttl=0.1).dispatch(),
    ]


async def ended(connection: asyncpg.Connection) -> bool:
    """Everything that was ever dispatched has its outcome, and nothing is left anywhere."""
    return not await connection.fetchval(
        "select exists (select from flowrun.jobs j left join flowrun.finished f on f.id = j.id where f.id is null)"
    )


class Trap:
    """A trigger on a table that raises at statements of some kinds."""

    def __init__(self, connection: asyncpg.Connection, table: str, events: str, state: str) -> None:
        self._connection, self._table, self._events, self._state = connection, table, events, state

    async def __aenter__(self) -> Self:
        await self._connection.execute(f"""
            create sequence if not exists public.trapped;
            create or replace function public.trap() returns trigger language plpgsql security definer as $$
            begin perform nextval('public.trapped'); raise exception '{WORDS}' using errcode = '{self._state}'; end $$;
            alter sequence public.trapped restart;
            create trigger trap before {self._events} on flowrun.{self._table}
            for each statement execute function public.trap()
        """)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.execute(f"drop trigger trap on flowrun.{self._table}")

    async def fired(self) -> bool:
        """Whether something met it: what a sequence gave is not taken back."""
        return bool(await self._connection.fetchval("select is_called from public.trapped"))


async def tables(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "select tablename from pg_tables where schemaname = 'flowrun' and tablename <> 'migrations' order by 1"
    )
    return [row[0] for row in rows]


async def walk(
    app: Flowrun, connection: asyncpg.Connection, until: Until, events: str, told: Callable[[], int], musts: set[str]
) -> set[str]:
    """Let each table in turn raise while there is work; the tables at which something was met, and told."""
    met: set[str] = set()
    for table in await tables(connection):
        before = told()
        await asyncio.gather(*(app.job("work", {"n": n}, delay=0.1 * n).dispatch() for n in range(10)))
        async with Trap(connection, table, events, next(STATES)) as trap:
            dispatched = asyncio.gather(*(dispatch(app) for _ in range(2)), return_exceptions=True)
            for _ in range(int((LONGER if table in musts else MISSED) / 0.05)):
                if await trap.fired() and (table not in musts or told() > before):
                    await asyncio.sleep(HELD)
                    break
                await asyncio.sleep(0.05)
            fired = await trap.fired()
        await dispatched
        await dispatch(app)
        try:
            await until(lambda: ended(connection), 60)
        except AssertionError:
            left = await connection.fetch(
                "select j.id, j.kind, j.type, j.queue, s.state from flowrun.jobs j left join flowrun.job_status s on"
                " s.id = j.id left join flowrun.finished f on f.id = j.id where f.id is null"
            )
            raise AssertionError(f"after {events} on {table} raised, these never ended: {left}") from None
        if fired and told() > before:
            met.add(table)
        await connection.execute("delete from flowrun.keys")
    return met


WORKED_BY = {
    "insert": {"ready", "leases", "finished", "scheduled", "attempts"},
    "update": {"workers", "leases", "schedules"},
    "delete": {"ready", "leases", "scheduled", "deadlines"},
}
"""Tables at which a worker's own statements must have met the trigger, whatever else did."""


@pytest.mark.parametrize("event", WORKED_BY)
async def test_no_statement_on_any_table_ends_an_embedded_worker(
    dsn: str,
    connection: asyncpg.Connection,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    event: str,
) -> None:
    monkeypatch.setattr(troubles, "SOON", 0.0)  # what table after table brings about is said each time
    app = make(dsn)

    def told() -> int:
        return sum(record.levelno >= logging.ERROR and WORDS in record.getMessage() for record in caplog.records)

    async with app.worker(concurrency=10) as worker:
        await app.schedules.put("tick", every=0.3, spec=app.job("work", {"n": 0}))
        met = await walk(app, connection, until, event, told, WORKED_BY[event])
        assert met >= WORKED_BY[event], f"only at {sorted(met)} it was met and told"
        await app.schedules.remove("tick")
        await until(lambda: ended(connection))
        assert not worker._ended.is_set()
    assert "it is possible again to settle" in caplog.text


async def test_no_statement_on_any_table_ends_a_worker_that_serves(
    dsn: str, connection: asyncpg.Connection, until: Until, tmp_path: Path
) -> None:
    (tmp_path / "served.py").write_text(
        "import os\nfrom flowrun.client import troubles\nfrom tests.neighbours.test_foreign_errors import make\n"
        "troubles.SOON = 0.0\napp = make(os.environ['SERVED_DSN'])\n"
    )
    environment = os.environ | {"SERVED_DSN": dsn, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with (tmp_path / "log").open("w") as log:
        served = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowrun", "serve", "served:app", "--concurrency", "10",
            env=environment, stderr=log, cwd=tmp_path,
        )  # fmt: skip
    try:
        everything = {"ready", "leases", "finished", "scheduled", "workers"}
        async with make(dsn) as app:
            await until(lambda: "runs 3 type(s)" in (tmp_path / "log").read_text())
            met = await walk(
                app,
                connection,
                until,
                "insert or update or delete",
                lambda: (tmp_path / "log").read_text().count(WORDS),
                everything,
            )
            assert met >= everything
        assert served.returncode is None
        served.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.wait(), 30) == 0
    finally:
        if served.returncode is None:
            served.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_it_is_seen_while_it_lasts_and_said_when_it_is_over(
    dsn: str, connection: asyncpg.Connection, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(dsn)

    async def seen() -> bool:
        return any(one.kind == "database" and WORDS in str(one) for w in await app.workers.list() for one in w.trouble)

    async with app.worker(concurrency=2):
        run = await app.job("work", {"n": 1}, delay=0.3).dispatch()
        async with Trap(connection, "finished", "insert", "53200"):
            await until(seen)
            found = (
                [one for one in await app.client.doctor() if one.check == "trouble"]
                if hasattr(app.client, "doctor")
                else []
            )
            assert all(WORDS in one.found for one in found)
            [first] = [one for one in caplog.records if "cannot settle" in one.getMessage()]
            assert (first.levelno, "[SQLSTATE 53200]" in first.getMessage()) == (logging.ERROR, True)
        assert await run.result(timeout=20) == 1
        await until(lambda: "it is possible again to settle" in caplog.text)

        async def calm() -> bool:
            return not await seen()

        await until(calm)


@pytest.mark.parametrize("table", ["finished", "leases", "ready"])
async def test_what_is_raised_at_the_commit(
    dsn: str, connection: asyncpg.Connection, until: Until, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    app = make(dsn)
    async with app.worker(concurrency=4):
        runs = await dispatch(app)
        await connection.execute(f"""
            create or replace function public.trap() returns trigger language plpgsql as $$
            begin raise exception '{WORDS}' using errcode = 'XX000'; end $$;
            create constraint trigger trap after insert or delete on flowrun.{table}
            deferrable initially deferred for each row execute function public.trap()
        """)
        running = asyncio.gather(dispatch(app), return_exceptions=True)
        await until(lambda: WORDS in caplog.text)
        await asyncio.sleep(HELD)
        await connection.execute(f"drop trigger trap on flowrun.{table}")
        await running
        runs += await dispatch(app)
        await until(lambda: ended(connection), 60)
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


@pytest.mark.parametrize("table", ["ready", "finished", "workers", "leases", "scheduled", "jobs", "edges"])
async def test_a_table_that_is_renamed_and_comes_back(
    dsn: str, connection: asyncpg.Connection, until: Until, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    app = make(dsn)
    async with app.worker(concurrency=4):
        await dispatch(app)
        await connection.execute(f"alter table flowrun.{table} rename to {table}_gone")
        await until(lambda: any(one.levelno >= logging.ERROR for one in caplog.records))
        await asyncio.sleep(HELD)
        await connection.execute(f"alter table flowrun.{table}_gone rename to {table}")
        await dispatch(app)
        await until(lambda: ended(connection), 60)
