"""What a tick means: which ticks are taken when, and what is done when the run before has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias

from flowrun.core.recurrence import Recurrence

Overlap: TypeAlias = Literal["allow", "skip", "queue", "cancel"]
Catchup: TypeAlias = Literal["none", "last", "all"]

OVERLAPS: Final[tuple[Overlap, ...]] = ("allow", "skip", "queue", "cancel")
CATCHUPS: Final[tuple[Catchup, ...]] = ("none", "last", "all")

ON_TIME: Final = timedelta(seconds=30)
"""A tick that is taken this late is late; one that is later was missed."""
BACKLOG: Final = 1000
"""Ticks that are made up for, or that queue, at most: the last ones."""

_MOMENT = timedelta(microseconds=1)


class Standing(NamedTuple):
    """A schedule whose time has come."""

    next_at: datetime
    """The next tick to be taken."""
    overlap: Overlap
    catchup: Catchup
    running: bool
    """What it dispatched last has not ended."""
    held: bool
    """A tick waited for the end of that."""


class Verdict(NamedTuple):
    """What is to be done now."""

    ticks: Sequence[datetime]
    """Those to be dispatched."""
    skipped: int
    """How many are left out because of ``overlap``."""
    next_at: datetime | None
    """The next tick to be taken; None: there is none."""
    waits: bool = False
    """``next_at`` is not taken before the run under way has ended: of what is dispatched now, or what ran before."""
    stop: bool = False
    """What runs is to be cancelled: if it has ended by that, ``ticks`` are dispatched, else the last of them waits."""


def decide(rule: Recurrence, standing: Standing, now: datetime, most: int) -> Verdict:
    """What is done at ``now``; at most ``most`` ticks are dispatched, the rest at the next look.

    >>> from flowrun.core.recurrence import EPOCH
    >>> standing = Standing(EPOCH, "skip", "none", running=True, held=False)
    >>> decide(Recurrence(every=15_000_000), standing, EPOCH, 100).skipped
    1
    """
    if standing.next_at > now:  # the clock was set back meanwhile
        return Verdict((), 0, standing.next_at)
    due = _due(rule, standing, now)
    after = rule.after(now)
    if not due:
        return Verdict((), 0, after)
    if standing.overlap == "allow":
        return Verdict(due[:most], 0, due[most] if len(due) > most else after)
    if standing.overlap == "skip":
        taken = () if standing.running else due[:1]
        return Verdict(taken, len(due) - len(taken), after)
    if standing.overlap == "cancel":
        return Verdict(due[-1:], len(due) - 1, after, stop=standing.running)
    if standing.running:
        return Verdict((), 0, due[0], waits=True)
    return Verdict(due[:1], 0, due[1], waits=True) if len(due) > 1 else Verdict(due, 0, after)


def _due(rule: Recurrence, standing: Standing, now: datetime) -> list[datetime]:
    """The ticks whose time has come, those that count as missed left out."""
    before = standing.next_at - _MOMENT
    if standing.held or standing.catchup == "all":
        return rule.between(before, now, BACKLOG)
    on_time = rule.between(max(before, now - ON_TIME), now, BACKLOG)
    if on_time or standing.catchup == "none":
        return on_time
    return rule.between(before, now, 1)
