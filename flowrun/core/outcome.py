"""What an attempt's end means for its job: finished, or another attempt, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast

from flowrun.core import backoff as backoffs
from flowrun.core.attempt import Failure
from flowrun.core.backoff import Backoff
from flowrun.core.naming import names_of, qualified
from flowrun.core.options import JobOptions, stored_backoff
from flowrun.errors import Discard, InvalidArguments, LineageTooDeep, NotReadable, NotStorable, Retry, Snooze

DEFAULT_ATTEMPTS = 3
LONGEST: Final = 100 * 366 * 86_400.0
"""Seconds, of any delay."""
SHORTEST_SNOOZE: Final = 0.05
"""Seconds: a handler that snoozes uses no attempt. With less it would keep a worker and the database busy for ever."""
DEFAULT_BACKOFF = backoffs.exponential(2.0, cap=3600.0)


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a job may run, and what is done between attempts."""

    attempts: int = DEFAULT_ATTEMPTS
    backoff: Backoff = DEFAULT_BACKOFF
    timeout: float | None = None
    retry_on: tuple[str, ...] | None = None
    """Names of exception types; None: all."""
    give_up_on: tuple[str, ...] = ()
    once: bool = False
    """An attempt that was lost, with its worker or with the process that ran it, is not followed by another."""
    before: int = 0
    """Attempts that do not count: from before the job was retried by hand, and those lost with their worker."""


@dataclass(frozen=True, slots=True)
class Again:
    """The job comes back after ``delay`` seconds with ``attempts_used``."""

    delay: float
    attempts_used: int


class Over:
    """The job has failed."""


OVER = Over()


class Said(NamedTuple):
    """What one exception says of the attempt; a group says what all in it do."""

    kinds: frozenset[str]
    """Names of its type and of those above it, and of the groups around it."""
    asks: str | None = None
    """``retry``, ``snooze``, or ``discard``: no attempt is wanted. None: it is an ordinary failure."""
    delay: float | None = None


class NotBegun(Snooze):
    """flowrun's own: the handler was not called, and the job comes back at once."""

    def __init__(self) -> None:
        super().__init__(0.0)


class RaisedElsewhere(Exception):
    """What a handler in a process of its own raised, as far as can be told here: no exception is made by its name."""

    def __init__(self, failure: Failure, said: Sequence[Said]) -> None:
        super().__init__(f"{failure.error_type}: {failure.message}")
        self.failure = failure
        self.said = said


def says(error: BaseException) -> Sequence[Said]:
    """What an exception says, or all exceptions in a group, however deep; cancellations beside others do not count."""
    if isinstance(error, RaisedElsewhere):
        return error.said
    found: list[tuple[BaseException, Said]] = []
    stack: list[tuple[BaseException, frozenset[str]]] = [(error, frozenset())]
    while stack:
        one, around = stack.pop()
        kinds = names_of(one) | around
        if isinstance(one, BaseExceptionGroup):
            stack.extend((inner, kinds) for inner in reversed(one.exceptions))
        elif isinstance(one, Discard | InvalidArguments | LineageTooDeep | NotReadable | NotStorable):
            found.append((one, Said(kinds, "discard")))
        elif isinstance(one, Retry | Snooze):
            found.append((one, Said(kinds, "retry" if isinstance(one, Retry) else "snooze", one.delay)))
        else:
            found.append((one, Said(kinds)))
    counted = [said for one, said in found if type(one).__name__ != "CancelledError"]
    return counted or [said for _, said in found]


def policy(handler: JobOptions, stored: Mapping[str, Any]) -> Policy:
    """What holds for a job: what was stored with it, else what its handler says, else the defaults."""
    before = stored.get("before", 0) + stored.get("lost", 0)
    return Policy(
        attempts=(stored.get("attempts") or handler.get("attempts") or DEFAULT_ATTEMPTS) + before,
        before=before,
        backoff=stored_backoff(stored) or cast("Backoff | None", handler.get("backoff")) or DEFAULT_BACKOFF,
        timeout=stored.get("timeout") or handler.get("timeout"),
        retry_on=_names(stored, handler, "retry_on"),
        give_up_on=_names(stored, handler, "give_up_on") or (),
        once=(stored.get("on_lost") or handler.get("on_lost")) == "fail",
    )


def decide(error: BaseException, attempt: int, policy: Policy, draw: float) -> Again | Over:
    """What follows when ``attempt`` ended with ``error``; ``draw`` is a random number in [0, 1) for the jitter.

    Of a group, the strictest counts: what fails the job (``Discard``, ``give_up_on``, what ``retry_on`` does not name),
    then what uses an attempt (failures, ``Retry``), then ``Snooze``; of several delays the longest.
    """
    said = says(error)
    if all(one.asks == "snooze" for one in said):
        shortest = 0.0 if isinstance(error, NotBegun) else SHORTEST_SNOOZE
        return Again(max(shortest, *(_delay(one.delay) for one in said)), attempt - 1)
    if attempt >= policy.attempts or any(one.asks == "discard" for one in said):
        return OVER
    ordinary = [one.kinds for one in said if one.asks is None]
    for kinds in ordinary:
        if not kinds.isdisjoint(policy.give_up_on):
            return OVER
        if policy.retry_on is not None and kinds.isdisjoint(policy.retry_on):
            return OVER
    delays = [_delay(one.delay) for one in said if one.delay is not None]
    if ordinary or not delays:
        delays.append(_backoff(policy, attempt, draw))
    return Again(max(delays), attempt)


def _backoff(policy: Policy, attempt: int, draw: float) -> float:
    """By the policy; where a function answers with no number of seconds, as if nobody had said anything."""
    number = max(1, attempt - policy.before)
    answer: Any = policy.backoff(number)
    if isinstance(answer, timedelta):
        answer = answer.total_seconds()
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not answer >= 0:
        answer = DEFAULT_BACKOFF(number)
    return backoffs.spread(_delay(answer), getattr(policy.backoff, "jitter", 0.0), draw)


def _delay(seconds: float | None) -> float:
    """Bounded: of a hundred years. Raises ValueError for what is none."""
    if seconds is None or not seconds >= 0:
        raise ValueError(f"a delay is a number of seconds, 0 or more; got {seconds!r}")
    return float(min(seconds, LONGEST))


def _names(stored: Mapping[str, Any], handler: JobOptions, option: str) -> tuple[str, ...] | None:
    if option in stored:
        return tuple(stored[option])
    kinds: Any = handler.get(option)
    return None if kinds is None else tuple(qualified(kind) for kind in kinds)
