"""What a worker does beside running jobs: due jobs, rescue of others' jobs, and not sitting on what it cannot run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

import anyio

from flowrun.client.control import tell
from flowrun.client.shield import shielded
from flowrun.logs import Log
from flowrun.store import deadlines, queues, upkeep
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection
from flowrun.store.queues import Known
from flowrun.store.upkeep import Beat, Due, Rescued
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler

logger = Log("flowrun.worker")

SITTING = 1.0
"""Seconds after which jobs that no consumer could take are handed back."""
PAUSE = 0.005
"""Seconds between two looks at the schedule, or at the queues, however often somebody rings."""


MAKING_DUE, RESCUING, LOOKING = "make due jobs ready", "rescue the jobs of lost workers", "look at the queues' settings"


async def persevere(session: Session, what: str, run: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run a loop of the worker's for as long as that lives, whatever ends it."""
    while True:
        try:
            return await run(*args)
        except Exception as error:  # noqa: BLE001 - no loop of a worker ends because of what one turn of it met
            await anyio.sleep(session.troubles.met(what, error))


class Timers:
    """Makes due jobs ready. Sleeps until the earliest, not in a polling loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due_at: float | None = None

    def learn(self, beat: Beat) -> None:
        """A heartbeat saw when the next job is due: another process may have scheduled it and died."""
        if beat.next_due is not None and (self._due_at is None or monotonic() + beat.next_due < self._due_at):
            self._session.wake.due.set()

    async def run(self) -> None:
        """Make due until cancelled."""
        session = self._session
        while True:
            await self._sleep()
            session.wake.due.clear()
            try:
                due = await self._make_due()
            except Exception as error:  # noqa: BLE001 - whatever it is: it passes
                await anyio.sleep(session.troubles.met(MAKING_DUE, error))
                session.wake.due.set()
                continue
            session.troubles.over(MAKING_DUE)
            self._due_at = None if due.next_due is None else monotonic() + max(0.0, due.next_due)
            if due.queues:
                session.client.notifier.wake(due.queues)
            await anyio.sleep(PAUSE)

    async def _sleep(self) -> None:
        seconds = None if self._due_at is None else max(0.0, self._due_at - monotonic())
        with anyio.move_on_after(seconds):
            await self._session.wake.due.wait()

    async def _make_due(self) -> Due:
        client = self._session.client
        settled = Settled()

        async def verb(connection: Connection) -> Due:
            nonlocal settled
            settled = Settled()
            due = await upkeep.make_due(connection, client.database.sql)
            if due.next_due is not None and due.next_due <= 0:
                await deadlines.overdue(connection, client.database.sql, settled, client.calls)
            return due

        due = await shielded(client.database.repeat(verb, patience=self._session.patience))
        tell(client, settled)
        return due


class Rescuer:
    """Gives up workers whose heartbeat stopped, and makes their jobs ready again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._expired = anyio.Event()

    def learn(self, beat: Beat) -> None:
        """A heartbeat saw whether another worker's time is up."""
        if beat.others_expired:
            self._expired.set()

    async def run(self) -> None:
        """Rescue until cancelled."""
        while True:
            await self._expired.wait()
            self._expired = anyio.Event()
            try:
                while (rescued := await self._rescue()) is not None:
                    logger.warning("worker %s is gone; %d job(s) taken from it", rescued.worker, rescued.jobs)
                    tell(self._session.client, rescued.settled)
            except Exception as error:  # noqa: BLE001 - whatever it is: it passes
                await anyio.sleep(self._session.troubles.met(RESCUING, error))
                self._expired.set()
            else:
                self._session.troubles.over(RESCUING)

    async def _rescue(self) -> Rescued | None:
        client = self._session.client
        database, limit = client.database, client.settings.crash_limit

        async def verb(connection: Connection) -> Rescued | None:
            return await upkeep.rescue_one(connection, database.sql, crash_limit=limit, calls=client.calls)

        return await shielded(database.repeat(verb, patience=self._session.patience))


async def look_at_queues(session: Session) -> None:
    """Learn which queues are limited or paused, and claim accordingly from now on."""
    database = session.client.database

    async def verb(connection: Connection) -> Known:
        return await queues.settings(connection, database.sql, session.id)

    known = await shielded(database.repeat(verb, patience=session.patience))
    if known != (session.changes, session.settings, session.paused_types):
        session.learn(known)


async def watch_queues(session: Session, settler: Settler) -> None:
    """Look whenever a queue was changed, hand back what is claimed of one that is paused, and say so. Until cancelled.

    From then on no job of it begins: those in the buffer are gone, and those on their way to it are turned away.
    """
    said = None
    while True:
        await session.stale.wait()
        session.stale.clear()
        try:
            await look_at_queues(session)
            if session.changes != said:
                if session.paused or session.paused_types:
                    settler.hand_back(session.turn_out(session.paused, session.paused_types))
                    _hold_up(session)
                    await settler.caught_up()
                await say_heard(session)
                said = session.changes
        except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and a claim that does not know brings nothing
            await anyio.sleep(session.troubles.met(LOOKING, error))
            session.stale.set()
        else:
            session.troubles.over(LOOKING)
            await anyio.sleep(PAUSE)


async def say_heard(session: Session) -> None:
    """Say that no job begins any more by what was known of queues before."""
    database, changes = session.client.database, session.changes

    async def verb(connection: Connection) -> None:
        await queues.hear(connection, database.sql, session.id, changes)

    await shielded(database.repeat(verb, patience=session.patience))


def _hold_up(session: Session) -> None:
    """Jobs of paused queues and types that have a consumer, and may wait for a process or a thread."""
    for slot in session.slots:
        if slot.job is not None and session.is_paused(slot.job):
            slot.job.held_up = True


async def hand_back_sitting(session: Session, settler: Settler) -> None:
    """Hand back claimed jobs that wait too long for a consumer: another worker may be free. Until cancelled."""
    while True:
        await anyio.sleep(SITTING)
        oldest = session.buffer.jobs[0] if session.buffer.jobs else None
        stuck = session.gates.oldest()
        if oldest is None and not stuck:
            continue
        await anyio.sleep(SITTING)
        if oldest is not None and session.buffer.jobs and session.buffer.jobs[0] is oldest:
            empty_buffer(session, settler)
        for job in stuck:
            if job.place.jobs and job.place.jobs[0] is job:
                settler.hand_back(session.gates.turn_out(place=job.place))


def empty_buffer(session: Session, settler: Settler) -> None:
    """Hand back the jobs ``of`` some queues (all) that no consumer has begun; no attempt is used."""
    settler.hand_back(session.turn_out())
