"""Tasks that handlers started and left behind: found when their attempts are over, named, and cancelled.

A job that is settled has nothing left to do: what still runs for it would die with the worker, fail unseen, and hold on
to what the next attempt needs. Looking costs a job nothing: a task keeps the context it was started in, which names the
attempt, so now and then all tasks of the loop are looked at.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextvars import Context
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakSet

from flowrun.core.attempt import Claimed
from flowrun.logs import Log
from flowrun.worker import stacks
from flowrun.worker.session import Session, Trouble
from flowrun.worker.tasks import AttemptTask

logger = Log("flowrun.worker")

SHARE = 100
"""Looking takes at most one part in so many of the time, also where there are very many tasks (0.6 us each)."""
REMEMBERED = timedelta(hours=1)
"""How long a type that left tasks behind is named among what troubles the worker."""


class _Left(NamedTuple):
    """What handlers of a type left behind."""

    times: int
    job: Claimed
    at: datetime


class Leftovers:
    """Looks for tasks whose attempt is over. One that is there at two looks is cancelled."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: WeakSet[asyncio.Task[Any]] = WeakSet()
        """Those that were there at the last look ..."""
        self._cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()
        """... and those that were told to end."""
        self._types: dict[str, _Left] = {}
        self._next_at = 0.0

    def look(self, *, at_once: bool = False) -> None:
        """Cancel what was there before, or all of it ``at_once``."""
        began = monotonic()
        if began < self._next_at and not at_once:
            return
        found: WeakSet[asyncio.Task[Any]] = WeakSet()
        for task in asyncio.all_tasks():
            if isinstance(task, AttemptTask) or task in self._cancelled:
                continue
            job = self._attempt_of(task)
            if job is None or not job.over:
                continue
            if at_once or task in self._seen:
                self._cancel(task, job)
            else:
                found.add(task)
        self._seen = found
        now = monotonic()
        self._next_at = now + (now - began) * SHARE

    def trouble(self) -> list[Trouble]:
        """The types whose handlers did so lately."""
        since = datetime.now(UTC) - REMEMBERED
        self._types = {type: left for type, left in self._types.items() if left.at > since}
        return [Trouble("task", type, left.job.id, left.at, left.times) for type, left in self._types.items()]

    def _attempt_of(self, task: asyncio.Task[Any]) -> Claimed | None:
        context = _context_of(task)
        return None if context is None else context.get(self._session.client.attempt)

    def _cancel(self, task: asyncio.Task[Any], job: Claimed) -> None:
        logger.warning(
            "job %s (%s): its handler left the task %r behind, which is cancelled; await it, or start what shall "
            "outlive the job by asyncio.create_task(..., context=contextvars.Context()). It is at:\n%s",
            job.id, job.type, task.get_name(), stacks.of_task(task),
        )  # fmt: skip
        before = self._types.get(job.type)
        self._types[job.type] = _Left(1 if before is None else before.times + 1, job, datetime.now(UTC))
        self._cancelled.add(task)
        task.cancel()


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """The context a task was started in."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Python 3.11 has no word for it. The garbage collector is shown everything that a task holds.
    return next((one for one in gc.get_referents(task) if isinstance(one, Context)), None)
