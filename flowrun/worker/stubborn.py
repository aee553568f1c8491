"""Handlers that do not end when they are asked to: named, left behind, and their places given to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

from flowrun.core.attempt import Claimed
from flowrun.logs import Log
from flowrun.worker import stacks
from flowrun.worker.session import LeftBehind, Session, Slot, Trouble

logger = Log("flowrun.worker")

STUBBORN = 5.0
"""Seconds a cancelled handler has to end before it is left behind."""


class Stubborn:
    """Looks for handlers that were cancelled and go on, and for threads that nobody waits for any more."""

    def __init__(self, session: Session, replace: Callable[[Slot, Claimed], None]) -> None:
        """``replace``: settles the attempt of a handler that was left behind, and starts a consumer in its place."""
        self._session = session
        self._replace = replace
        self._asked: dict[Slot, tuple[Claimed, float]] = {}
        """The job that was asked to stop in a slot, and since when that is known."""

    def look(self) -> None:
        """Leave behind who has had its time."""
        now = monotonic()
        asked: dict[Slot, tuple[Claimed, float]] = {}
        for slot in list(self._session.slots):
            job = slot.job
            if job is None or job.over or slot.task is None:
                continue
            if job.interrupted or (job.scope is not None and job.scope.cancel_called):
                before = self._asked.get(slot)
                since = before[1] if before is not None and before[0] is job else now
                if now - since < STUBBORN:
                    asked[slot] = (job, since)
                else:
                    self._leave_behind(slot, slot.task, job, now - since)
        self._asked = asked
        self._look_at_threads(now)

    def trouble(self) -> list[Trouble]:
        """Those that were left behind and still run."""
        now, today = monotonic(), datetime.now(UTC)
        return [
            *(Trouble("handler", one.job.type, one.job.id, one.since) for one in self._session.left),
            *(
                Trouble("thread", call.job.type, call.job.id, today - timedelta(seconds=now - call.left_at))
                for call in self._session.threads.left
            ),
        ]

    def ended(self, task: asyncio.Task[None]) -> None:
        """An attempt that was left behind has ended."""
        for one in list(self._session.left):
            if one.slot.task is task:
                self._session.left.remove(one)
                logger.warning("a handler that was left behind has ended; what it came to is refused")
                if not task.cancelled():
                    task.exception()  # seen

    def _look_at_threads(self, now: float) -> None:
        for call in self._session.threads.left:
            if not call.reported and now - call.left_at >= STUBBORN and call.thread is not None:
                call.reported = True
                logger.error(
                    "job %s (%s): its thread still runs, %.0f s after its attempt was over; no thread can be "
                    "interrupted:\n%s",
                    call.job.id, call.job.type, now - call.left_at, stacks.of_thread(call.thread),
                )  # fmt: skip

    def _leave_behind(self, slot: Slot, task: asyncio.Task[None], job: Claimed, seconds: float) -> None:
        left = self._session.left
        logger.error(
            "job %s (%s): its handler ignores its cancellation, %.0f s after it; it is left behind, and what it comes "
            "to is refused (%d such now):\n%s",
            job.id, job.type, seconds, len(left) + 1, stacks.of_task(task),
        )  # fmt: skip
        left.append(LeftBehind(slot, job, datetime.now(UTC) - timedelta(seconds=seconds)))
        self._replace(slot, job)


def quiet(job: Claimed) -> None:
    """Cancel the handler no more: anyio does so in every turn of the loop, which a stubborn one makes a busy loop."""
    handle = getattr(job.scope, "_cancel_handle", None)
    if handle is not None:
        handle.cancel()
