"""Jobs that end what is not theirs: the worker that runs them, or what runs their own attempt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flowrun.core.attempt import Claimed, Ending
from flowrun.logs import Log
from flowrun.worker.failures import AttemptEnded
from flowrun.worker.session import Session, Slot, Trouble
from flowrun.worker.tasks import cancelled_by

logger = Log("flowrun.worker")

REMEMBERED = timedelta(hours=1)
"""How long a type that did so is named among what troubles the worker."""


class Endings:
    """Finds slots whose task has ended without a word, and remembers which types end what."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def look(self, answer: Callable[[Slot, Ending | None], None]) -> None:
        """Have ``answer`` settle what no task answers for any more: one that was cancelled before it began, say."""
        for slot in self._session.slots:
            task, job = slot.task, slot.job
            if task is None or not task.done():
                continue
            error = None if task.cancelled() else task.exception()
            if job is None:
                logger.error("a consumer ended; another takes its place", exc_info=error)
                answer(slot, None)
                continue
            by = cancelled_by(task) if error is None else None
            if by is None or by is job:
                logger.error("job %s (%s): what ran its attempt was ended", job.id, job.type, exc_info=error)
                self._session.note_ending(job)
            if error is None:
                error = AttemptEnded("what ran the attempt was ended before the handler was")
            answer(slot, self._session.runner.broke_off(job, error, by))

    def trouble(self) -> list[Trouble]:
        """The types that did so lately."""
        since = datetime.now(UTC) - REMEMBERED
        endings = self._session.endings
        for type in [type for type, (_, _, at) in endings.items() if at <= since]:
            del endings[type]
        return [Trouble("end", type, job.id, at, times) for type, (times, job, at) in endings.items()]


def refused(session: Session, job: Claimed) -> None:
    """The code of a job has tried to end the worker: said once an attempt."""
    if not job.swept:
        job.swept = True
        session.note_ending(job)
        logger.error(
            "job %s (%s): its code has tried to cancel the worker that runs it, as by cancelling all tasks; the worker "
            "goes on. Cancel only what the handler itself has started", job.id, job.type,
        )  # fmt: skip
