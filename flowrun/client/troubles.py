"""What keeps flowrun's own loops from their work: said at once, then more and more rarely, until it is over.

A loop that meets an error tries again for ever. Whoever looks has to see that it does: in the log, among what troubles
the worker, and at the end that it is over.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from flowrun.logs import Log
from flowrun.store.blame import Fault, fault_of
from flowrun.store.pool import level, reason

logger = Log("flowrun.worker")

FIRST: Final = {Fault.LINK: 0.2, Fault.AGAIN: 0.05, Fault.SERVER: 0.1, Fault.DATA: 0.1}
"""Seconds until the second try ..."""
LAST: Final = {Fault.LINK: 1.0, Fault.AGAIN: 2.0, Fault.SERVER: 5.0, Fault.DATA: 5.0}
"""... and between tries at last: twice as long each time."""
SOON, RARELY = 5.0, 300.0
"""Seconds until the same is said again, and at last."""
OFTEN = 5
"""Times in a row that a link or a lock may fail before it is an error, and shown as trouble."""


@dataclass(slots=True)
class _Open:
    """Something that cannot be done."""

    since: datetime
    said_at: float
    gap: float = SOON
    times: int = 0
    row: int = 0
    """Times since it was possible last."""
    why: str = ""
    loud: bool = False
    """It was said as an error."""
    over_at: float | None = None
    """It was possible again, for now."""
    silent: bool = False
    """It was not said that it is impossible, since it was possible last."""


class Open:
    """What cannot be done at the moment, for people."""

    __slots__ = ("since", "times", "what")

    def __init__(self, what: str, since: datetime, times: int) -> None:
        self.what, self.since, self.times = what, since, times


class Troubles:
    """Of one worker, or of the client beside it. May be told from other threads, each about other things."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._past: dict[str, _Open] = {}
        """What was possible again, lately."""
        self.changed: Callable[[], None] | None = None
        """Called when there is something to tell, or no more."""

    def met(self, what: str, error: BaseException) -> float:
        """``what`` (as in "cannot claim") was tried in vain; the seconds until it should be tried again."""
        fault, now = fault_of(error), monotonic()
        one = self._open.get(what)
        if one is None:
            # What comes and goes is not said each time.
            one = self._past.pop(what, None)
            if one is None or one.over_at is None or now - one.over_at > RARELY:
                one = _Open(datetime.now(UTC), now - SOON)
            one.row, one.silent = 0, True
            self._open[what] = one
        one.times += 1
        one.row += 1
        before, one.why = one.loud, reason(error)
        loud = fault in (Fault.SERVER, Fault.DATA) or one.row >= OFTEN
        if now - one.said_at >= one.gap or (loud and not before):
            one.gap = min(one.gap * 2, RARELY) if one.times > 1 else SOON
            one.said_at, one.loud, one.silent = now, before or loud, False
            self._say(what, one, fault, error)
        if self.changed is not None and loud and (one.row in (1, OFTEN) or not before):
            self.changed()
        exponent = min(one.row - 1, 16)
        # So that many workers do not all come at the same moment.
        return float(min(FIRST[fault] * 2**exponent, LAST[fault]) * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    def over(self, what: str) -> None:
        """``what`` was done."""
        one = self._open.pop(what, None)
        if one is None:
            return
        self._past[what] = one
        one.over_at = monotonic()
        if self.changed is not None and one.loud:
            self.changed()
        if one.silent:
            return
        seconds = (datetime.now(UTC) - one.since).total_seconds()
        logger.log(
            logging.WARNING if one.loud else logging.INFO,
            "it is possible again to %s, after %.1f s and %d tries in vain", what, seconds, one.times,
        )  # fmt: skip

    def now(self) -> list[Open]:
        """What is worth showing, the oldest first."""
        return [Open(f"{what}: {one.why}", one.since, one.times) for what, one in list(self._open.items()) if one.loud]

    def __bool__(self) -> bool:
        return bool(self._open)

    def _say(self, what: str, one: _Open, fault: Fault, error: BaseException) -> None:
        again = "" if one.times == 1 else f", tried {one.times} times since {one.since:%H:%M:%S} UTC"
        how = logging.ERROR if one.loud else logging.WARNING
        if fault is Fault.AGAIN and not one.loud:
            how = level(error)
        state = getattr(error, "sqlstate", None)
        code = f" [SQLSTATE {state}]" if isinstance(state, str) and one.loud else ""
        # A traceback where no server has refused it: it may be a mistake in flowrun itself.
        trace = error if one.loud and one.times == 1 and not code and fault is Fault.DATA else None
        logger.log(how, "cannot %s (%s)%s%s; trying again", what, one.why, code, again, exc_info=trace)
