"""The service that takes the ticks of schedules. Where there are none it sleeps for ever."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from uuid import UUID

import anyio

from flowrun.client.control import tell
from flowrun.client.shield import shielded
from flowrun.guarded import sheltered
from flowrun.logs import Log
from flowrun.store import ticks
from flowrun.store.blame import Fault, fault_of
from flowrun.store.pool import Connection
from flowrun.store.ticks import Ticked, TickFailed
from flowrun.store.upkeep import Beat
from flowrun.worker.session import Session

logger = Log("flowrun.worker")

PAUSE = 0.005
"""Seconds between two looks, however often somebody rings."""
EARLIER = 0.1
"""Seconds that a heartbeat's word must be earlier than what is known: no two clocks agree to the millisecond."""
SOON = 0.2
"""Seconds until another look where somebody else has what is due: whoever that is may die."""
WATCH = 600.0
"""Seconds for which a run is watched that a tick waits for: then its end is noticed with the next heartbeat."""
TICKING = "take ticks that are due"
UNFIT = 60.0
"""Seconds for which a schedule that cannot be dealt with is left alone."""


class Ticks:
    """Sleeps until the earliest tick, and until the ends of runs that ticks wait for; then takes what is due."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due_at: float | None = None
        self._watched: set[UUID] = set()
        self._unfit: dict[str, float] = {}
        """Schedules left alone, until when."""

    def learn(self, beat: Beat) -> None:
        """A heartbeat saw when the next tick is due: whoever was to take it, or waited for a run, may have died."""
        if beat.next_tick is not None and (
            self._due_at is None or monotonic() + beat.next_tick < self._due_at - EARLIER
        ):
            self._session.wake.tick.set()

    async def run(self) -> None:
        """Take ticks until cancelled."""
        wake = self._session.wake.tick
        async with anyio.create_task_group() as group:
            while True:
                seconds = None if self._due_at is None else max(0.0, self._due_at - monotonic())
                with anyio.move_on_after(seconds):
                    await wake.wait()
                wake.clear()
                try:
                    ticked = await self._take()
                except Exception as error:  # noqa: BLE001 - whatever it is: it passes
                    await anyio.sleep(self._session.troubles.met(TICKING, error))
                    wake.set()
                    continue
                self._session.troubles.over(TICKING)
                self._sleep_for(ticked)
                for run in ticked.waits_for - self._watched:
                    self._watched.add(run)
                    group.start_soon(sheltered, self._watch, run)
                await anyio.sleep(PAUSE)

    def _sleep_for(self, ticked: Ticked) -> None:
        until = [] if ticked.next_in is None else [max(ticked.next_in, 0.0 if ticked.schedules else SOON)]
        now = monotonic()
        until += [at - now for at in self._unfit.values()]
        self._due_at = now + min(until) if until else None

    async def _take(self) -> Ticked:
        """Take what is due. A schedule with which something is wrong stops none of the others."""
        now = monotonic()
        self._unfit = {key: until for key, until in self._unfit.items() if until > now}
        try:
            return await self._look(ticks.BATCH)
        except Exception as error:
            if fault_of(error) is not Fault.DATA:
                raise
            logger.debug("a batch of ticks failed (%r); taking them one by one", error)
        while True:
            try:
                return await self._look(1)
            except TickFailed as failed:
                self._unfit[failed.key] = now + UNFIT
                logger.exception("schedule %r cannot tick here; trying again in %.0f s", failed.key, UNFIT)

    async def _look(self, limit: int) -> Ticked:
        client = self._session.client

        async def verb(connection: Connection) -> Ticked:
            return await ticks.take(
                connection,
                client.database.sql,
                sealing=client.sealing,
                now=client.clock(),
                unfit=list(self._unfit),
                limit=limit,
            )

        ticked = await shielded(client.database.repeat(verb, patience=self._session.patience))
        tell(client, ticked.settled)
        return ticked

    async def _watch(self, run: UUID) -> None:
        """Look again when a run has ended. One that lasts very long, or was pruned, is left to the heartbeat."""
        with suppress(TimeoutError):
            await self._session.client.waits.wait(run, WATCH)
        self._watched.discard(run)
        self._session.wake.tick.set()
