"""One run of chaos: a server, a fleet, work without pause, faults, then quiet, and the checker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from flowrun import Flowrun, NotFound
from flowrun.store import migrate
from tests.chaos import checker, flows, handlers, journal, pruning, ticking
from tests.chaos.faults import EVERYBODY, STATEMENT_TIMEOUT, Fault, Faults, deck
from tests.chaos.fleet import Fleet, Member
from tests.chaos.handlers import Mended
from tests.chaos.journal import Journal
from tests.chaos.proxy import Proxy
from tests.chaos.server import Pooler, Server, can_mount, has_pooler
from tests.chaos.ticking import Ticked
from tests.chaos.worker import LEASE, OPTIONS, Settings
from tests.model import varied
from tests.upgrades import history

MAY_BE_NONE = ("deadlocks", "workers of the version before that left late", "dispatches refused")
"""What a run need not have seen."""
STILL = 45.0
"""Seconds without any progress after which what is left is called stuck: many leases, polls and backoffs."""


@dataclass
class Plan:
    """What a run is to be."""

    seed: int
    seconds: float
    place: Path
    workers: int = 3
    rate: float = 12.0
    """Dispatches a second."""
    pause: float = 2.4
    """Seconds between the beginnings of two faults, on average."""
    kinds: list[str] | None = None
    """Only these faults."""
    plant: str | None = None
    """A bug to be planted into the workers and the dispatcher."""
    still: float = STILL
    seen: Counter[str] = field(default_factory=Counter)
    """Faults of runs before this one: the rarest come first."""
    operators: bool = True
    """Besides, several clients do all verbs to the same flows."""


@dataclass
class Report:
    plan: Plan
    faults: list[Fault] = field(default_factory=list)
    dealt: Counter[str] = field(default_factory=Counter)
    """By kind, the faults that were planned."""
    missing: list[str] = field(default_factory=list)
    problems: list[checker.Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    evidence: checker.Evidence | None = None

    @property
    def planned(self) -> int:
        return self.dealt.total()

    @property
    def injected(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.faults if not fault.kind.startswith("("))

    @property
    def valid(self) -> bool:
        """Whether enough of the faults came about, and to enough, for the rest to mean anything."""
        return sum(self.injected.values()) >= 0.8 * self.planned and not self.vacuous

    @property
    def vacuous(self) -> list[str]:
        """What a run of a minute and more must have seen, and this one has not."""
        if self.evidence is None or self.plan.seconds < 60 or self.plan.kinds:
            return []
        lines = Counter(line.event for line in self.evidence.lines)
        wanted = {
            "kills itself": 0.8 * (self.injected["worker killed by its job"] + self.injected["poison job"]),
            "blocks": 0.8 * self.injected["event loop blocked"],
            "paused": self.injected["queue paused"],
            "twin started": self.injected["worker started twice"],
        }
        few = [f"{lines[event]} of {least:.0f} {event!r}" for event, least in wanted.items() if lines[event] < least]
        return few + [f"no {what}" for what, n in self.counts.items() if not n and what not in MAY_BE_NONE]


async def play(plan: Plan) -> Report:
    """One run, from an empty directory to its report."""
    plan.place.mkdir(parents=True, exist_ok=True)
    plan.place.chmod(0o711)
    async with _stage(plan) as (server, fleet, faults):
        keepers = [asyncio.create_task(fleet.keep(member)) for member in fleet.members]
        stalls = Stalls(faults.done)
        try:
            await _begun(fleet)
            ticked = await ticking.begin(server.dsn)
            fleet.journal.write("phase", name="trouble")
            frozen = Frozen(server.dsn)
            watching = asyncio.create_task(frozen.watch())
            planned = await _make_trouble(plan, faults)
            fleet.journal.write("phase", name="rest")
            for member in fleet.members:
                member.change = lambda settings: settings
            ended = await _come_to_rest(plan, server, fleet, ticked)
            watching.cancel()
            fleet.journal.write("phase", name="end")
            await fleet.end()
            fleet.journal.write("phase", name="over")
        finally:
            stalls.stop()
            for keeper in keepers:
                keeper.cancel()
            fleet.closing = True
            for member in fleet.members:
                if member.alive and member.process is not None:
                    member.process.kill()
                    await member.process.wait()
        report = Report(plan, list(faults.done), planned, faults.missing())
        evidence = await checker.gather(server.dsn, plan.place, fleet.deaths, faults.done, frozen.seen, ticked)
        evidence.deadlocks = checker.read_deadlocks(server.log.read_text("utf-8", "replace"))
        report.counts, report.evidence = evidence.counts(), evidence
        report.problems = [checker.Problem("process", what) for what in fleet.surprises]
        report.problems += [checker.Problem("I10 stuck", what) for what in ended]
        report.problems += await checker.check(server.dsn, evidence)
        report.problems += [checker.Problem(*said) for said in await pruning.left_over(server.dsn)]
        if report.problems:
            histories = await checker.histories(server.dsn, evidence, report.problems)
            (plan.place / "histories").write_text(histories)
        return report


@asynccontextmanager
async def _stage(plan: Plan) -> AsyncIterator[tuple[Server, Fleet, Faults]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(plan.place, small_disk=can_mount()))
        pooler = None
        if has_pooler():
            pooler = await stack.enter_async_context(Pooler(plan.place, server.port))
        await prepare(server.dsn)
        fleet = Fleet(plan.place, Journal(plan.place / "run.journal"))
        for number in range(plan.workers):
            # The last one works through the pooler.
            through = pooler if number == plan.workers - 1 else None
            fleet.members.append(await _member(stack, plan, server, f"worker{number}", "worker", through))
        fleet.members.append(await _member(stack, plan, server, "dispatcher", "dispatcher", None))
        if plan.operators:
            fleet.members.append(await _member(stack, plan, server, "operator", "operator", pooler))
        faults = Faults(
            Random(f"faults {plan.seed}"), server, fleet, pooler, can_mount(),
            await asyncio.to_thread(old_version, plan.place),
        )  # fmt: skip
        yield server, fleet, faults


async def prepare(dsn: str) -> None:
    """The schema, what handlers write themselves, and the settings of a strict database administrator."""
    connection = await asyncpg.connect(dsn)
    try:
        await migrate.migrate(connection, "flowrun")
        await connection.execute(handlers.TABLES + pruning.ARCHIVE)
        await connection.execute(f"alter role all set statement_timeout = '{STATEMENT_TIMEOUT}s'")
    finally:
        await connection.close()


async def _member(
    stack: AsyncExitStack, plan: Plan, server: Server, name: str, program: str, pooler: Pooler | None
) -> Member:
    direct = await stack.enter_async_context(Proxy(server.port))
    proxies = [direct]
    to_server = f"postgresql://flowrun@127.0.0.1:{direct.port}/postgres"
    settings = Settings(name, to_server, str(plan.place), seed=plan.seed, rate=plan.rate, plant=plan.plant)
    if pooler is not None:
        pooled = await stack.enter_async_context(Proxy(pooler.port))
        proxies.append(pooled)
        settings.dsn = f"postgresql://flowrun@127.0.0.1:{pooled.port}/postgres"
        settings.listen_dsn, settings.pooler = to_server, True
    return Member(settings, program, proxies)


def old_version(place: Path) -> str | None:
    """A checkout of flowrun as it was before its newest migration; None where there is no history."""
    try:
        return str(history.unpack(history.commit_before(), place / "old"))
    except history.NoHistory:
        return None


async def _begun(fleet: Fleet) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = journal.read(fleet.place)
        if len({line.pid for line in journal.of(lines, "works")}) >= len(fleet.workers):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the workers did not start: see their logs")


async def _make_trouble(plan: Plan, faults: Faults) -> Counter[str]:
    """Faults, one after the other and now and then two at once, until the time is over. What was planned."""
    random = Random(f"deck {plan.seed}")
    kinds = plan.kinds or list(faults.kinds())
    cards = deck(
        random, kinds, max(len(kinds) if plan.seconds > 60 else 1, round(plan.seconds / plan.pause)), plan.seen
    )
    deadline = time.monotonic() + plan.seconds
    async with asyncio.TaskGroup() as group:
        running: set[asyncio.Task[None]] = set()
        for card in cards:
            while len(running) >= 2:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            task = group.create_task(faults.do(card))
            running.add(task)
            task.add_done_callback(running.discard)
            # Late because of slow faults? Then the rest comes faster: all that is planned is done.
            left = max(0.0, deadline - time.monotonic())
            await asyncio.sleep(min(random.expovariate(1 / plan.pause), plan.pause * 2, left or 0.2))
    return Counter(cards)


async def _come_to_rest(plan: Plan, server: Server, fleet: Fleet, ticked: Ticked) -> list[str]:
    """No faults any more: whatever was dispatched has to end. What does not is returned."""
    if not server.running:
        await server.start()
    for member in fleet.members:
        member.signal_if_stopped()
        for proxy in member.proxies:
            proxy.heal()
    for member in fleet.clients:
        member.ending, member.final = True, True
        member.signal(signal.SIGTERM)
    for member in fleet.clients:
        if member.alive and member.process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(member.process.wait(), 15)
            if member.alive:
                member.process.kill()
    async with Flowrun(server.dsn, **OPTIONS) as app:
        tending = Tending(app, plan.place)
        connection = await asyncpg.connect(server.dsn, server_settings={"statement_timeout": "0"})
        try:
            behind = await ticking.end(app, ticked, plan.still)
            return behind + await _watch(connection, tending, plan.still)
        finally:
            await connection.close()


async def _watch(connection: asyncpg.Connection, tending: Tending, still: float) -> list[str]:
    moved, last = time.monotonic(), None
    while True:
        await tending.tend(connection)
        now = await connection.fetchrow(
            "select (select count(*) from flowrun.finished), (select count(*) from flowrun.attempts),"
            " (select coalesce(sum(need), 0) from flowrun.blocked), (select count(*) from flowrun.gates)"
        )
        if not await connection.fetchval(ANYTHING) and not await tending.wanting(connection):
            return []
        if now != last:
            moved, last = time.monotonic(), now
        if time.monotonic() - moved > still:
            rows = await connection.fetch(
                "select j.id, j.name, j.type, j.flow_id, s.state from flowrun.jobs j join flowrun.job_status s"
                " on s.id = j.id where s.finished_at is null limit 30"
            )
            held = await connection.fetch("select * from flowrun.leases limit 5")
            wanted = await tending.wanting(connection)
            return [f"{dict(row)} has not ended" for row in rows] + [
                f"still there at rest: {dict(row)}" for row in [*held, *wanted]
            ]
        await asyncio.sleep(0.3)


class Tending:
    """Does what a dispatcher that was killed had still to do: signals, retries, cancels."""

    def __init__(self, app: Flowrun, place: Path) -> None:
        self._app = app
        self._place = place
        self._mended = Mended(place / "mended")

    async def tend(self, connection: asyncpg.Connection) -> None:
        with contextlib.suppress(NotFound):  # removed in this very moment
            await self._tend(connection)

    async def _tend(self, connection: asyncpg.Connection) -> None:
        for row in await connection.fetch(OPEN_GATES):
            kind, number = row["name"].replace("flow", "varied").split(" ")
            run = await self._app.get_flow(row["id"])
            if kind == "wild":
                await run.signal("go", "yes")
            elif kind == "varied":
                for name, step in varied.walk(flows.varied(int(number)).steps):
                    if step.kind == "gate" and step.do == "signal":
                        await run.signal(name, step.answer)
                    if step.kind == "race" and step.racers[0] == "gate":
                        await run.signal(f"{name}-a", "yes")
        for row in await self.wanting(connection):
            if row["type"] is not None:
                await (await self._app.get_job(row["id"])).cancel()
            else:
                self._mended.add(int(row["name"].split(" ")[1]))
                await (await self._app.get_flow(row["id"])).retry()

    async def wanting(self, connection: asyncpg.Connection) -> list[asyncpg.Record]:
        """Varied flows that failed and are to be retried, and hanging jobs that nobody has cancelled."""
        failed = await connection.fetch(FAILED)
        again = [row for row in failed if flows.varied(int(row["name"].split(" ")[1])).again]
        return again + await connection.fetch(HANGING)


ANYTHING = """
select exists (select from flowrun.leases where jobs <> '{}') or exists (select from flowrun.ready)
    or exists (select from flowrun.scheduled) or exists (select from flowrun.blocked) or exists (select from flowrun.gates)
"""
OPEN_GATES = """
select distinct root.id, root.name from flowrun.gates g join flowrun.jobs j on j.id = g.id
join flowrun.flows f on f.id = j.flow_id join flowrun.flows root on root.id = f.root_id
"""
FAILED = """
select fl.id, fl.name, null as type from flowrun.flows fl join flowrun.finished f on f.id = fl.id
where fl.id = fl.root_id and fl.name like 'flow _%' and f.outcome = 2
and not exists (select from flowrun.audit a where a.flow_id = fl.id and a.verb = 'retry')
"""
HANGING = """
select j.id, j.name, j.type from flowrun.jobs j where j.type = 'hanging'
and not exists (select from flowrun.finished f where f.id = j.id)
and not exists (select from flowrun.cancels c where c.id = j.id)
"""


class Frozen:
    """Remembers outcomes as they were first seen: none may ever change."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.seen: dict[UUID, tuple[Any, ...]] = {}

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        since = datetime(2000, 1, 1, tzinfo=UTC)
        while True:
            await asyncio.sleep(2.0)
            with contextlib.suppress(*handlers.errors()):
                connection = await asyncpg.connect(self._dsn, timeout=5)
                try:
                    for id, *outcome in await connection.fetch(ENDED, since):
                        self.seen.setdefault(id, tuple(outcome))
                        since = max(since, outcome[-1] - timedelta(seconds=10))
                finally:
                    connection.terminate()


ENDED = """
select id, outcome, attempt, result ->> 'token', finished_at from flowrun.finished
where finished_at > $1
"""


class Stalls:
    """Notes when this machine had no time for us: nobody can keep a lease then."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(0.05):
            now = time.monotonic()
            if now - before > LEASE / 4:
                self._faults.append(Fault("(machine stalled)", before, now, [EVERYBODY]))
            before = now
