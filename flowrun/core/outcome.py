"""What an attempt's end means for its job: finished, or another attempt, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flowrun.core import backoff as backoffs
from flowrun.core.attempt import Failure
from flowrun.core.backoff import Backoff
from flowrun.core.options import JobOptions, qualified, stored_backoff
from flowrun.errors import Discard, InvalidArguments, LineageTooDeep, NotReadable, NotStorable, Retry, Snooze

DEFAULT_ATTEMPTS = 3
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


class RaisedElsewhere(Exception):
    """What a handler in a process of its own raised, as far as can be told here: no exception is made by its name."""

    def __init__(self, failure: Failure, kinds: frozenset[str], final: bool) -> None:
        super().__init__(f"{failure.error_type}: {failure.message}")
        self.failure = failure
        self.kinds = kinds
        """The names of its type and of those above it."""
        self.final = final
        """It fails the job, whatever attempts are left."""


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
    """What follows when ``attempt`` ended with ``error``; ``draw`` is a random number in [0, 1) for the jitter."""
    if isinstance(error, Snooze):
        return Again(_delay(error.delay), attempt - 1)
    elsewhere = error if isinstance(error, RaisedElsewhere) else None
    final = isinstance(error, Discard | InvalidArguments | LineageTooDeep | NotReadable | NotStorable)
    if final or (elsewhere is not None and elsewhere.final) or attempt >= policy.attempts:
        return OVER
    if isinstance(error, Retry):
        delay = _backoff(policy, attempt, draw) if error.delay is None else _delay(error.delay)
        return Again(delay, attempt)
    kinds = elsewhere.kinds if elsewhere is not None else {qualified(kind) for kind in type(error).__mro__}
    if not kinds.isdisjoint(policy.give_up_on) or (policy.retry_on is not None and kinds.isdisjoint(policy.retry_on)):
        return OVER
    return Again(_backoff(policy, attempt, draw), attempt)


def _backoff(policy: Policy, attempt: int, draw: float) -> float:
    jitter = getattr(policy.backoff, "jitter", 0.0)
    return backoffs.spread(_delay(policy.backoff(max(1, attempt - policy.before))), jitter, draw)


def _delay(seconds: float) -> float:
    return min(max(float(seconds), 0.0), 100 * 366 * 86_400.0) if seconds == seconds else 0.0


def _names(stored: Mapping[str, Any], handler: JobOptions, option: str) -> tuple[str, ...] | None:
    if option in stored:
        return tuple(stored[option])
    kinds: Any = handler.get(option)
    return None if kinds is None else tuple(qualified(kind) for kind in kinds)
