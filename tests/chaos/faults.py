"""The faults: each is done by a coroutine that returns whom it concerned, or None when it could not be done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

import asyncpg

from flowrun import Flowrun
from tests.chaos import computing, handlers
from tests.chaos.fleet import Fleet, Member
from tests.chaos.server import Pooler, Server
from tests.chaos.worker import LEASE, Settings

EVERYBODY = -1
"""As a process: the fault concerns all of them."""

SESSIONS = {
    "claim": "%skip locked%",
    "settle": "with held as%",
    "heartbeat": "%others_expired%",
    "listen": "%listen%",
    "user": "%",
}
"""Whose sessions are terminated, by the statement they ran last. A worker listens where its heart beats."""


@dataclass
class Fault:
    kind: str
    at: float
    until: float
    pids: list[int]
    """The processes concerned; EVERYBODY among them: all."""

    def touches(self, pid: int, begin: float, end: float) -> bool:
        return self.at <= end and self.until >= begin and (pid in self.pids or EVERYBODY in self.pids)


@dataclass
class Faults:
    """Does them, and remembers."""

    random: Random
    server: Server
    fleet: Fleet
    pooler: Pooler | None
    small_disk: bool
    old: str | None
    done: list[Fault] = field(default_factory=list)
    planned: dict[str, int] = field(default_factory=dict)
    number: int = 0
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who starts and stops the server ..."""
    pausing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """... and who has paused the queue."""

    def kinds(self) -> dict[str, Callable[[], Awaitable[list[int] | None]]]:
        """All that can be done here. The others are :meth:`missing`."""
        kinds: dict[str, Callable[[], Awaitable[list[int] | None]]] = {
            "worker killed": self._kill_worker,
            "worker killed by its job": self._killing_job,
            "dispatcher killed": self._kill_dispatcher,
            "worker stopped past its lease": self._zombie,
            "worker drained": self._drain,
            "claim session terminated": lambda: self._terminate("claim"),
            "settle session terminated": lambda: self._terminate("settle"),
            "heartbeat session terminated": lambda: self._terminate("heartbeat"),
            "listening session terminated": lambda: self._terminate("listen"),
            "user session terminated": lambda: self._terminate("user"),
            "server restarted": self._restart,
            "links cut": self._cut,
            "links delayed": self._delay,
            "links half-open": self._black_hole,
            "answers lost": self._deaf,
            "clock wrong": self._skew,
            "tables locked past the statement timeout": self._lock,
            "event loop blocked": self._block,
            "connections used up": self._use_up,
            "database read-only": self._read_only,
            "queue paused": self._pause,
            "worker started twice": self._twin,
            "schedules' clock steps back": self._step_back,
            "handler's process killed": self._kill_child,
            "poison job": self._poison,
            "foreign error": self._foreign_error,
        }
        if self.pooler is not None:
            kinds["pooler killed"] = self._kill_pooler
        if self.small_disk:
            kinds["disk full"] = self._fill_disk
        if self.old is not None:
            kinds["versions mixed"] = self._mix_versions
        return kinds

    def missing(self) -> list[str]:
        """What cannot be done on this machine, and why."""
        found = []
        if self.pooler is None:
            found.append("pooler killed (no pgbouncer here)")
        if not self.small_disk:
            found.append("disk full (not root: nothing can be mounted)")
        if self.old is None:
            found.append("versions mixed (no git history here)")
        return found

    async def do(self, kind: str) -> None:
        """Do one of the kinds, and write it down."""
        self.planned[kind] = self.planned.get(kind, 0) + 1
        begun = time.monotonic()
        self.fleet.journal.write("fault begins", kind=kind)
        try:
            pids = await self.kinds()[kind]()
            for _ in range(20):
                if pids is not None:
                    break
                # Nobody is there whom it could befall: in a moment somebody may be.
                await asyncio.sleep(0.5)
                pids = await self.kinds()[kind]()
        except handlers.errors() as error:
            self.fleet.journal.write("fault failed", kind=kind, error=repr(error))
            # It may have begun: what it did to whom is not known.
            self.done.append(Fault(f"({kind})", begun, time.monotonic(), [EVERYBODY]))
            return
        if pids is None:
            self.fleet.journal.write("fault impossible", kind=kind)
            return
        self.done.append(Fault(kind, begun, time.monotonic(), pids))
        self.fleet.journal.write("fault ends", kind=kind, pids=pids)

    # -- processes

    def _worker(self) -> Member | None:
        free = [m for m in self.fleet.workers if m.alive and not m.stopped and not m.ending]
        # One is left alone, always: somebody must be there to rescue.
        return self.random.choice(free) if len(free) > 1 else None

    async def _kill_worker(self) -> list[int] | None:
        member = self._worker()
        if member is None:
            return None
        orphans, pid = computing.children(member.pid), self._kill(member)
        deadline = time.monotonic() + ORPHANED
        while any(map(computing.is_child, orphans)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        left = [child for child in orphans if computing.is_child(child)]
        if left:
            self.fleet.surprises.append(f"{ORPHANED:.0f} s after its worker {pid} was killed, {left} still ran")
        return pid

    async def _kill_dispatcher(self) -> list[int] | None:
        free = [member for member in self.fleet.clients if member.alive]
        return self._kill(self.random.choice(free)) if free else None

    def _kill(self, member: Member) -> list[int]:
        member.ending = True
        member.signal(signal.SIGKILL)
        return [member.pid]

    async def _kill_child(self) -> list[int] | None:
        found = [child for member in self.fleet.workers if member.alive for child in computing.children(member.pid)]
        if not found:
            return None
        child = self.random.choice(found)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            return [child]
        return None

    async def _twin(self) -> list[int] | None:
        member = self._worker()
        return None if member is None else [await self.fleet.twin(member, self.random.uniform(2.0, 5.0))]

    async def _step_back(self) -> list[int] | None:
        return await self._changed(lambda settings: replace(settings, step_back=True), self.fleet.workers)

    async def _pause(self) -> list[int] | None:
        """No job begins while the queue of all is paused."""
        async with self.pausing, Flowrun(self.server.dsn, pool_size=1) as app:
            async with asyncio.timeout(20):
                await app.queues.pause("default")
            self.fleet.journal.write("paused")
            try:
                await asyncio.sleep(self.random.uniform(2.0, 3.5))
            finally:
                self.fleet.journal.write("resumes")
                for _ in range(200):
                    try:
                        await app.queues.resume("default")
                        break
                    except handlers.errors():
                        await asyncio.sleep(0.1)
        return []

    async def _zombie(self) -> list[int] | None:
        member = self._worker()
        if member is None:
            return None
        member.stopped, pid = True, member.pid
        member.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(LEASE * self.random.uniform(1.2, 2.0))
        finally:
            member.signal(signal.SIGCONT)
            member.stopped = False
        return [pid]

    async def _drain(self) -> list[int] | None:
        member = self._worker()
        if member is None:
            return None
        return await self._replace(member)

    async def _replace(self, member: Member) -> list[int]:
        member.ending, process = True, member.process
        member.signal(signal.SIGTERM)
        assert process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 30)
            return [process.pid]
        self.fleet.slow(member, process.pid, 30.0)
        process.kill()
        return [process.pid]

    async def _changed(self, change: Callable[[Settings], Settings], members: list[Member]) -> list[int] | None:
        free = [m for m in members if m.alive and not m.stopped and not m.ending]
        if not free:
            return None
        member = self.random.choice(free)
        member.change = change
        await self._replace(member)
        return [member.pid]

    async def _skew(self) -> list[int] | None:
        skew = self.random.choice([-86_400.0, -600.0, -5.0, 5.0, 600.0, 86_400.0, 0.0])
        drift = 1.0 if skew else self.random.choice([0.5, 2.0])
        return await self._changed(lambda settings: replace(settings, skew=skew, drift=drift), self.fleet.members)

    async def _mix_versions(self) -> list[int] | None:
        old = self.old
        return await self._changed(lambda settings: replace(settings, old=old), self.fleet.workers[:2])

    async def _block(self) -> list[int] | None:
        return await self._dispatch("blocking", seconds=self.random.uniform(0.5, 1.6) * LEASE)

    async def _killing_job(self) -> list[int] | None:
        return await self._dispatch("killing")

    async def _poison(self) -> list[int] | None:
        return await self._dispatch("poison")

    async def _dispatch(self, kind: str, **more: float) -> list[int] | None:
        self.number += 1
        number = -self.number
        async with asyncio.timeout(20), Flowrun(self.server.dsn, pool_size=1) as app:
            run = await app.job(kind, {"number": number, **more}).dispatch()
        self.fleet.journal.write("intent", kind=kind, number=number)
        self.fleet.journal.write("ack", kind=kind, number=number, id=str(run.id))
        return []

    # -- connections

    async def _terminate(self, whose: str) -> list[int] | None:
        others = [pattern for name, pattern in SESSIONS.items() if name != "user"]
        connection = await asyncpg.connect(self.server.dsn, timeout=5)
        try:
            for _ in range(20):
                rows = await connection.fetch(
                    "select pid from pg_stat_activity where application_name = 'flowrun' and pid <> pg_backend_pid()"
                    " and query ilike $1 and ($2::text[] is null or not query ilike any($2))",
                    SESSIONS[whose],
                    others if whose == "user" else None,
                )
                if rows:
                    victims = self.random.sample(rows, self.random.randint(1, len(rows)))
                    await connection.fetch(
                        "select pg_terminate_backend(x) from unnest($1::int[]) x", [v[0] for v in victims]
                    )
                    return []
                await asyncio.sleep(0.1)
            return None
        finally:
            connection.terminate()

    def _linked(self) -> Member:
        return self.random.choice(self.fleet.members)

    async def _cut(self) -> list[int] | None:
        member = self._linked()
        return [member.pid] if sum(proxy.cut() for proxy in member.proxies) else None

    async def _delay(self) -> list[int] | None:
        member = self._linked()
        for proxy in member.proxies:
            proxy.delay = self.random.choice([0.02, 0.1, 0.4])
        return await self._healed(member, self.random.uniform(1, 4))

    async def _black_hole(self) -> list[int] | None:
        """All links of a process, for less or for more than its lease; or one of them alone, for ever."""
        member = self._linked()
        links = [link for proxy in member.proxies for link in proxy.links]
        if links and self.random.random() < 0.6:
            self.random.choice(links).silent = True
        else:
            for proxy in member.proxies:
                proxy.silent = True
        return await self._healed(member, self.random.choice([1.0, 2.0, LEASE * 1.5]))

    async def _deaf(self) -> list[int] | None:
        """What is under way is done by the server, and nobody hears of it; then the links are cut."""
        member = self._linked()
        for proxy in member.proxies:
            proxy.deaf = True
        links = [link for proxy in member.proxies for link in proxy.links]
        await asyncio.sleep(self.random.uniform(0.1, 0.6))
        lost = sum(link.swallowed for link in links)
        for proxy in member.proxies:
            proxy.deaf = False
            proxy.cut()
        return [member.pid] if lost else None

    async def _healed(self, member: Member, seconds: float) -> list[int] | None:
        """A good link again after a while; None when nothing wanted to pass meanwhile."""
        pid, before = member.pid, sum(proxy.held for proxy in member.proxies)
        try:
            await asyncio.sleep(seconds)
        finally:
            for proxy in member.proxies:
                if proxy.silent and self.random.random() < 0.5:
                    proxy.cut()
                proxy.heal()
        return [pid] if sum(proxy.held for proxy in member.proxies) > before else None

    # -- the server

    async def _restart(self) -> list[int] | None:
        async with self.one_at_a_time:
            await self.server.stop(immediate=self.random.random() < 0.8)
            await asyncio.sleep(self.random.choice([0.0, 0.5, 2.0, LEASE * 1.3]))
            await self.server.start()
        return [EVERYBODY]

    async def _fill_disk(self) -> list[int] | None:
        async with self.one_at_a_time:
            await self.server.fill_disk(self.random.uniform(0.5, 2.0))
        return [EVERYBODY]

    async def _kill_pooler(self) -> list[int] | None:
        assert self.pooler is not None
        self.pooler.kill()
        await asyncio.sleep(self.random.choice([0.0, 0.5, 2.0]))
        self.pooler.start()
        return [member.pid for member in self.fleet.workers if member.settings.pooler]

    async def _lock(self) -> list[int] | None:
        table = self.random.choice(["workers", "leases", "blocked", "finished", "jobs", "ready", "scheduled"])
        connection = await asyncpg.connect(self.server.dsn, timeout=5)
        try:
            async with connection.transaction():
                await connection.execute("set local statement_timeout = '10s'")
                await connection.execute(f"lock table flowrun.{table} in access exclusive mode")
                waited = 0
                for _ in range(round(self.random.uniform(1.0, 2.0) * STATEMENT_TIMEOUT / 0.2)):
                    await asyncio.sleep(0.2)
                    waited += await connection.fetchval(
                        "select count(*) from pg_locks where not granted and relation = $1::text::regclass",
                        f"flowrun.{table}",
                    )
        finally:
            connection.terminate()
        if not waited:
            return None
        # What somebody does to the others costs no worker its leases, unless it is of the version before.
        return [EVERYBODY] if table == "workers" else [member.pid for member in self.fleet.workers if member.old]

    async def _foreign_error(self) -> list[int] | None:
        """Whatever is written into one of flowrun's tables is refused for a while, with an error that nobody foresaw."""
        table, code = self.random.choice(TABLES), self.random.choice(CODES)
        connection = await asyncpg.connect(self.server.dsn, timeout=5, server_settings={"statement_timeout": "10s"})
        try:
            before = await connection.fetchval(REFUSED)
            await connection.execute(
                f"create or replace trigger foreign_error before insert or update or delete on flowrun.{table}"
                f" for each statement execute function chaos.refuse('{code}')"
            )
            try:
                await asyncio.sleep(self.random.uniform(0.5, 2.5))
            finally:
                await self._drop(table)
            return [EVERYBODY] if await connection.fetchval(REFUSED) > before else None
        finally:
            connection.terminate()

    async def _drop(self, table: str) -> None:
        """Take the trigger away, whatever else happens to the server meanwhile."""
        for _ in range(400):
            try:
                connection = await asyncpg.connect(
                    self.server.dsn, timeout=5, server_settings={"statement_timeout": "10s"}
                )
                try:
                    await connection.execute(f"drop trigger if exists foreign_error on flowrun.{table}")
                finally:
                    connection.terminate()
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await asyncio.sleep(0.1)

    async def _use_up(self) -> list[int] | None:
        held, refused = [], False
        try:
            try:
                for _ in range(200):
                    held.append(await asyncpg.connect(self.server.dsn, timeout=5))
            except (asyncpg.PostgresError, OSError, TimeoutError):
                refused = True
            await asyncio.sleep(self.random.uniform(0.5, 2.0))
        finally:
            for connection in held:
                connection.terminate()
        return [] if held and refused else None

    async def _read_only(self) -> list[int] | None:
        await self._set("default_transaction_read_only", "on")
        try:
            await asyncio.sleep(self.random.uniform(0.3, 2.0))
        finally:
            for _ in range(200):
                try:
                    await self._set("default_transaction_read_only", "off")
                    break
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                    await asyncio.sleep(0.1)
        return [EVERYBODY]

    async def _set(self, name: str, value: str) -> None:
        connection = await asyncpg.connect(self.server.dsn, timeout=5)
        try:
            await connection.execute(f"alter system set {name} = {value}")
            await connection.execute("select pg_reload_conf()")
        finally:
            connection.terminate()


TABLES = [
    "workers",
    "leases",
    "blocked",
    "finished",
    "jobs",
    "ready",
    "scheduled",
    "edges",
    "attempts",
    "keys",
    "slots",
]
CODES = ["XX000", "53100", "53200", "58030", "P0001", "42501", "57014", "40P01", "0A000"]
"""An internal error, a full disk, no memory, an I/O error, a trigger's own, a right that was taken, and the like."""
REFUSED = "select last_value from chaos.refusals"
"""A sequence: what is refused is rolled back, and it is not."""
ORPHANED = 10.0
"""Seconds after the end of a worker that the processes of its handlers have to end."""
STATEMENT_TIMEOUT = 2.0
"""Seconds, of all sessions of a run."""


def deck(random: Random, kinds: list[str], count: int, seen: Mapping[str, int]) -> list[str]:
    """``count`` faults in any order, those first of which the fewest were ``seen``: in the end each is as frequent."""
    times = {kind: seen.get(kind, 0) for kind in kinds}
    drawn = []
    for _ in range(count):
        drawn.append(min(kinds, key=lambda kind: (times[kind], random.random())))
        times[drawn[-1]] += 1
    random.shuffle(drawn)
    return drawn
