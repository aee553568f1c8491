"""Jobs that were lost with a worker are tried apart: one of them may be what kills the workers.

All that a worker had when it died look alike. So each of them begins alone: nothing else of its worker begins until it
has ended, or has run for a while, and what was claimed ahead is handed back first. Then a second loss tells more, and
costs nobody else anything.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from flowrun import codec
from flowrun.core.attempt import Attempted, Claimed, Ending, handed_back
from flowrun.logs import Log
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler

logger = Log("flowrun.worker")

ALONE, LONGER, LONGEST = 2.0, 8.0, 600.0
"""Seconds for which nothing begins beside a job that was lost once; how many times as long after each further loss in a
row; at most."""
PATIENCE = 2.0, 20.0
"""Seconds for which it waits for what runs to end, before it begins: after its first loss, and after a later one."""
SHORT = 0.25
"""Seconds: a trial that took no longer is followed by the next at once, a longer one by other work, twice as long."""
MARK = '"lost"'
"""What the options of a job that was lost once contain."""


class Trials:
    """A worker's trials, one at a time."""

    def __init__(self, session: Session, settler: Settler) -> None:
        self._session = session
        self._settler = settler
        self._timer: asyncio.TimerHandle | None = None
        self._began_at = 0.0
        self._pause = 0.0
        """Seconds from a trial to the next."""
        self._put_off = 0
        """How many were put off since the last trial ended."""

    async def admitted(self, job: Claimed) -> bool:
        """Wait until a job that a consumer has taken may begin. False: it is handed back."""
        losses = _losses(job)
        if losses == 0:
            return True
        session = self._session
        if session.trial is not None and not session.trial.over:
            self._put_back([job])
            return False
        session.trial = job
        session.buffer.closed = True
        try:
            self._put_back(session.turn_out())
            await self._quiet(job, losses)
            await self._alone()
        except BaseException as error:
            self._end(job)
            if job.interrupted and not job.given_back and isinstance(error, asyncio.CancelledError):
                return True  # it was cancelled, which its attempt finds out
            raise
        if session.stopping or session.lost.is_set() or job.held_up:
            self._end(job)
            self._settler.hand_back([job])
            return False
        last = losses + 1 >= session.client.settings.crash_limit
        alone = LONGEST if last else min(ALONE * LONGER ** (losses - 1), LONGEST)
        logger.info("job %s (%s) was lost %d time(s) and runs alone", job.id, job.type, losses)
        self._began_at = monotonic()
        self._timer = asyncio.get_running_loop().call_later(alone, self._end, job)
        return True

    def ended(self, job: Claimed, attempted: Attempted) -> Attempted:
        """Its attempt is over, and the worker lives."""
        if self._session.trial is job:
            self._end(job)
        if type(attempted) is Ending and attempted.outcome is None and not job.held_up:
            return attempted._replace(survived=True)
        return attempted

    async def _alone(self) -> None:
        """Wait until nothing else is in this worker's leases but what runs: claims that are under way are answered, and
        what they brought, and what was put back, is settled."""
        session = self._session
        # An event would have to be set by every claim.
        while session.buffer.asked > 0 and not session.lost.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await self._settler.caught_up()

    async def _quiet(self, job: Claimed, losses: int) -> None:
        """Wait until nothing else runs here, for a while."""
        session = self._session
        until = monotonic() + PATIENCE[losses > 1]
        while session.buffer.running + self._settler.settles_aside > 1 and monotonic() < until:
            if session.stopping or session.lost.is_set() or job.held_up or job.interrupted:
                return
            await asyncio.sleep(0.005)

    def _put_back(self, jobs: list[Claimed]) -> None:
        """None of these has begun. Those that are to be tried, too, come back one after the other."""
        for job in jobs:
            delay = 0.0
            if job.options is not None and MARK in job.options and _losses(job):
                self._put_off += 1
                delay = self._pause * self._put_off
            self._settler.put(handed_back(job, delay))

    def _end(self, job: Claimed) -> None:
        session = self._session
        if session.trial is not job:
            return
        if self._timer is not None:
            self._timer.cancel()
            took = monotonic() - self._began_at
            self._pause = 2 * min(took, ALONE) if took > SHORT else 0.0
        self._timer, self._put_off = None, 0
        session.trial = None
        session.buffer.closed = False
        session.buffer.room_made.set()


def _losses(job: Claimed) -> int:
    """How often in a row it was lost with its worker."""
    stored: dict[str, Any] = codec.load(job.options or "{}")
    lost, survived = stored.get("lost", 0), stored.get("survived", 0)
    return max(0, lost - survived) if type(lost) is type(survived) is int else 0
