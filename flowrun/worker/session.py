"""What the loops of one worker share while it lives under one id."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Literal, NamedTuple
from uuid import UUID

from flowrun import mint
from flowrun.client.dispatch import Client
from flowrun.client.shield import shielded
from flowrun.client.troubles import Troubles
from flowrun.core.attempt import Claimed
from flowrun.core.compile import TYPES
from flowrun.core.lanes import queue_of
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.errors import DatabaseError
from flowrun.logs import Log
from flowrun.redaction import guarded
from flowrun.store import upkeep
from flowrun.store.pool import LOST, PINNED, Connection, reason
from flowrun.store.queues import Known, QueueSetting
from flowrun.worker.buffer import Buffer
from flowrun.worker.gates import Gates
from flowrun.worker.processes import Processes
from flowrun.worker.run import Runner, SealedRunner, interrupt
from flowrun.worker.services import JobServices
from flowrun.worker.tasks import AttemptTask
from flowrun.worker.threads import Threads
from flowrun.worker.wake import Bell, Wake

logger = Log("flowrun.worker")

AGAIN = 0.5
"""Seconds after which a job that could not begin tries again."""
OFTEN = 0.02
"""Seconds in which it makes no difference how often others say that they wait."""
MOST_AWAITED = 100_000
"""Ids for which others wait, so many are remembered."""
OTHERS_WAIT = 2.0
"""Seconds for which a worker that met a used-up limit is taken to wait; it says so again every second."""


@dataclass(slots=True, eq=False)
class Slot:
    """A consumer's place: the task, and the job it runs right now."""

    job: Claimed | None = None
    task: AttemptTask | None = None


class LeftBehind(NamedTuple):
    """A handler that ignored its cancellation and still runs."""

    slot: Slot
    job: Claimed
    since: datetime


class Trouble(NamedTuple):
    """What a worker complains of."""

    kind: Literal["handler", "thread", "loop", "task", "database", "end"]
    """A handler ignores its cancellation; its thread goes on after its attempt; it blocks the event loop; it left tasks
    behind; it tried to end the worker, or ended what runs its attempt. Or the database refuses something that the
    worker itself has to do."""
    type: str | None
    """Of the job; None: the loop is blocked by no handler's own task."""
    job: UUID | None
    since: datetime
    times: int = 1
    what: str | None = None
    """Of the database: what cannot be done, and why."""

    def stored(self) -> dict[str, Any]:
        """As JSON can carry it."""
        job = None if self.job is None else str(self.job)
        stored = {
            "kind": self.kind,
            "type": self.type,
            "job": job,
            "since": self.since.isoformat(),
            "times": self.times,
        }
        return stored if self.what is None else {**stored, "what": self.what}


class UnderLimit(NamedTuple):
    """A lease whose jobs take up limits."""

    bell: Bell
    """Of who claims there."""
    place: str | None
    """A sequence's, whose slot the next job there gets straight in a settle; None: it is no sequence's."""
    changes: int
    """Of queues, that this is the state after."""


@dataclass(eq=False)
class Session:
    """One life of a worker: an id, its leases, its buffer. A worker that was given up starts another."""

    client: Client
    queues: Sequence[str]
    types: Sequence[str]
    concurrency: int
    allotments: Mapping[str, int] = field(default_factory=dict)
    """By queue: how many of the consumers its jobs may have."""
    id: UUID = field(default_factory=mint.job_id)
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    stopping: bool = False
    """No more is claimed or handed off."""
    cut: bool = False
    """The program ends around it, perhaps because of what runs."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the worker was given up: its jobs are somebody else's."""

    def __post_init__(self) -> None:
        settings = self.client.settings
        self.patience = max(5.0, settings.lease)
        """Seconds in which claims and settles are answered, unless nobody is there any more."""
        self.buffer = Buffer(self.concurrency)
        self.gates = Gates(self.buffer)
        self.wake = Wake()
        self.threads = threads = Threads(self.concurrency)
        limit = settings.processes or _cores()
        self.processes = Processes(limit, max_payload=settings.max_payload, error_text=settings.error_text)
        sealing = self.client.sealing
        self.runner = (partial(SealedRunner, sealing) if sealing.active else Runner)(
            self.client.registry,
            threads=threads,
            processes=self.processes,
            services=partial(JobServices, self.client, threads, settings.max_payload, (self.id, self.name)),
            attempt=self.client.attempt,
            begin=partial(begin, self),
            middleware=self.client.registry.middleware,
            max_payload=settings.max_payload,
            error_text=settings.error_text,
            redact=guarded(settings.redact),
        )
        self.job_takers = frozenset(one.type for one in self.client.registry if one.job_parameter is not None)
        """Types whose handlers take the running job."""
        self.slots = [Slot() for _ in range(self.concurrency)]
        self.left: list[LeftBehind] = []
        """Handlers that ignored their cancellation and still run."""
        self.endings: dict[str, tuple[int, Claimed, datetime]] = {}
        """By type: how often its jobs tried to end what is not theirs, the last of them, and when."""
        self.trial: Claimed | None = None
        """A job that was lost with a worker before, and is tried alone: nothing begins beside it."""
        self.trouble: list[Trouble] = []
        """What there is to complain of, but for the loop and the database."""
        self.troubles = Troubles()
        """What the database keeps the worker's own loops from."""
        self.drained = asyncio.Event()
        self.awaited: OrderedDict[UUID, None] = OrderedDict()
        """Jobs and flows that somebody in another process waits for."""
        self.settings: Mapping[str, QueueSetting] = {}
        """Queues that are limited or paused, by name."""
        self.changes = -1
        """How many changes of queues that is the state after. A claim that does not know all brings nothing."""
        self.paused: frozenset[str] = frozenset()
        """Queues of which no job may begin."""
        self.paused_types: frozenset[str] = frozenset()
        """Types of which no job may begin ..."""
        self.open_types: list[str] = []
        """... and those that are claimed."""
        self.stale = asyncio.Event()
        """A queue was changed: its settings are to be looked at again."""
        self.claimers_listen = settings.listen_dsn is None and not settings.pooler
        """Whether what becomes ready is heard by who claims it; else by the heartbeat, or by nobody."""
        self.listeners: set[int] = set()
        """Server processes of the claimers that listen."""
        self.handoff_queues: list[str] = []
        """Those whose jobs may be taken over straight from a settle: nobody counts them."""
        self.under_limit: dict[int, UnderLimit] = {}
        """Leases that take up limits."""
        self.others_wait_until = 0.0
        """Until then, other workers are taken to wait for slots that this one may have."""
        self._leases = 0

    def complaints(self) -> list[Trouble]:
        """All there is to complain of, but for the loop."""
        refused = [*self.troubles.now(), *self.client.troubles.now()]
        return [*self.trouble, *(Trouble("database", None, None, one.since, one.times, one.what) for one in refused)]

    def next_lease(self, count: int = 1) -> int:
        """A number for a lease, or the first of several; never used twice under this id."""
        first = self._leases + 1
        self._leases += count
        return first

    def learn(self, known: Known) -> None:
        """From now on, respect these settings of queues, and of types."""
        self.changes, self.settings, self.paused_types = known
        self.open_types = [one for one in [*self.types, *TYPES.values()] if one not in self.paused_types]
        settings = self.settings
        self.paused = frozenset(name for name, setting in settings.items() if setting.paused)
        self.handoff_queues = [
            SYSTEM_QUEUE,
            *(queue for queue in self.queues if not self.is_limited(queue) and queue not in self.allotments),
        ]
        self.wake.ring_all()

    def is_limited(self, queue: str) -> bool:
        """Whether claims from ``queue`` need a look at limits, or are not to be made."""
        setting = self.settings.get(queue)
        return setting is not None and (setting.limited or bool(setting.paused))

    def busy(self, queues: Collection[str]) -> int:
        """How many jobs of ``queues`` this worker has, running or about to."""
        jobs = [slot.job for slot in self.slots if slot.job is not None]
        return sum(queue_of(job.queue) in queues for job in [*jobs, *self.buffer.jobs, *self.gates.waiting()])

    def offer(self, jobs: Sequence[Claimed]) -> None:
        """Jobs that the buffer holds, to the consumers: as many of them as their limits let in."""
        self.buffer.put(self.gates.admit(jobs) if self.gates.places else jobs)

    def is_paused(self, job: Claimed) -> bool:
        """Whether it may not begin, since its queue or its type is paused."""
        return job.type in self.paused_types or queue_of(job.queue) in self.paused

    def turn_out(self, queues: Collection[str] | None = None, types: Collection[str] = ()) -> list[Claimed]:
        """Jobs of some ``queues`` (all) or ``types`` that no consumer has begun, taken out of the buffer."""
        out = self.gates.turn_out(queues, types=types)
        for _ in range(len(self.buffer.jobs)):
            job = self.buffer.jobs.popleft()
            if queues is not None and queue_of(job.queue) not in queues and job.type not in types:
                self.buffer.jobs.append(job)
                continue
            if job.place is not None:
                self.gates.withdrawn(job)
            out.append(job)
        return out

    def freed(self, leases: Iterable[int], passed_on: Collection[int] = ()) -> None:
        """Jobs have left their leases: where these took up a limit, something else may be let in, unless it was."""
        for lease in leases:
            under_limit = self.under_limit.get(lease)
            if under_limit is not None:
                if lease not in passed_on:
                    under_limit.bell.ring_limited()
                if lease not in self.buffer.held:
                    del self.under_limit[lease]
                    self.gates.forget([lease])

    def moved(self, lease: int, other: int) -> None:
        """A job was moved from a lease that holds others into another, and nothing else has changed."""
        self.buffer.held[lease] -= 1
        self.buffer.held[other] += 1
        if lease in self.under_limit:
            self.under_limit[other] = self.under_limit[lease]
            self.gates.carry(lease, other)

    def others_wait(self, worker: str) -> None:
        """A worker (perhaps this one) met a limit that is used up."""
        if worker != str(self.id):
            until = monotonic() + OTHERS_WAIT
            if until - self.others_wait_until < OFTEN:
                return
            self.others_wait_until = until
            self.gates.share()
            self.wake.ring_limited()

    def slots_given(self, worker: str) -> None:
        """A worker (perhaps this one) gave back slots that others wait for."""
        if worker != str(self.id):
            self.wake.ring_limited(news=True)

    def interrupt(self, ids: Iterable[UUID]) -> None:
        """Jobs were asked to stop: those that run here are told."""
        wanted = set(ids)
        for job in [*self.buffer.jobs, *self.gates.waiting()]:
            if job.id in wanted:
                job.interrupted = True
        for slot in self.slots:
            if slot.job is not None and slot.job.id in wanted and slot.task is not None:
                interrupt(slot.job, slot.task)

    def note_ending(self, job: Claimed) -> None:
        """A job tried to end what is not its own."""
        times = self.endings[job.type][0] if job.type in self.endings else 0
        self.endings[job.type] = (times + 1, job, datetime.now(UTC))

    def hasten(self, seconds: float) -> int:
        """A test moves time on: running attempts come so much nearer to their timeouts, and everything is looked at.
        Returns how many run."""
        running = [slot.job for slot in self.slots if slot.job is not None]
        if seconds > 0:
            for job in running:
                if job.scope is not None:
                    job.scope.deadline -= seconds
            self.wake.ring_all()
        return len(running)

    def announce(self, ids: Sequence[UUID]) -> None:
        """Jobs have ended: tell those who wait."""
        self.client.waits.settled(ids)
        if self.awaited:
            hits = [id for id in ids if id in self.awaited]
            for id in hits:
                del self.awaited[id]
            if hits:
                self.client.notifier.done(hits)

    def remember_awaited(self, ids: Iterable[UUID]) -> None:
        """Somebody waits for ``ids``; the oldest are forgotten beyond a bound (those who wait also poll)."""
        self.awaited.update(dict.fromkeys(ids))
        while len(self.awaited) > MOST_AWAITED:
            self.awaited.popitem(last=False)

    async def connect(self, patience: float, **settings: Any) -> Any:
        """A connection of one's own, planner pinned; ``patience``: seconds that an answer may take."""
        return await self.client.database.connect({**PINNED, **settings}, patience=patience)


async def begin(session: Session, job: Claimed) -> bool:
    """Note that the handler of a job that must not run twice is called; False if that must not be: it is not this
    worker's any more. Where the database does not answer, it is asked until it does, or the worker is given up."""
    database = session.client.database

    async def verb(connection: Connection) -> bool:
        return await upkeep.begin(
            connection, database.sql, worker_id=session.id, lease=job.lease, job=job.id, attempt=job.attempt
        )

    while not session.lost.is_set():
        try:
            job.begun = await shielded(database.repeat(verb, patience=session.patience))
        except (DatabaseError, *LOST) as error:
            logger.warning("job %s (%s) cannot begin (%s); trying again", job.id, job.type, reason(error))
            await asyncio.sleep(AGAIN)
        else:
            return job.begun
    return False


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
