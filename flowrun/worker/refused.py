"""What the database refuses to settle."""

from __future__ import annotations

from flowrun import codec
from flowrun.core.attempt import Ending, Failure
from flowrun.core.states import Outcome
from flowrun.logs import Log
from flowrun.store.pool import reason

logger = Log("flowrun.worker")


def tell_refused(ending: Ending, error: BaseException, times: int) -> None:
    """Say which job it is that the database refuses, and what becomes of it."""
    what = (
        "its outcome cannot be stored, so it fails",
        "it cannot be settled with all that hangs on it, so it fails without that: what waits for it goes on waiting",
        "it cannot be settled at all, and is left alone until this worker ends",
    )[times - 1]
    logger.error("job %s attempt %d: %s: %s", ending.id, ending.attempt, what, reason(error))


def unstorable(ending: Ending, error: BaseException) -> Ending:
    """How the job ends instead: it fails."""
    message = codec.clean_text(f"the outcome cannot be stored: {reason(error)}", 1000)
    failure = Failure("flowrun.ResultNotStorable", message, None)
    stored = codec.dump({"type": failure.error_type, "message": message})
    return Ending(ending.id, ending.lease, ending.attempt, Outcome.FAILED, failure=failure, error=stored)
