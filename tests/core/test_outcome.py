"""What an attempt's end means for its job."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from flowrun import Discard, InvalidArguments, Retry, Snooze, backoff
from flowrun.core.options import check, to_stored
from flowrun.core.outcome import (
    DEFAULT_ATTEMPTS,
    DEFAULT_BACKOFF,
    OVER,
    SHORTEST_SNOOZE,
    Again,
    NotBegun,
    Policy,
    decide,
    policy,
)

EXACT = backoff.constant(7.0, jitter=0.0)


class Late(OSError):
    pass


def rules(attempts: int = 3, **more) -> Policy:
    return Policy(attempts=attempts, backoff=EXACT, **more)


@pytest.mark.parametrize(
    ("error", "attempt", "follows"),
    [
        (ValueError(), 1, Again(7.0, 1)),
        (ValueError(), 2, Again(7.0, 2)),
        (ValueError(), 3, OVER),
        (ValueError(), 4, OVER),
        (SystemExit(1), 1, Again(7.0, 1)),
        (KeyboardInterrupt(), 3, OVER),
        (Discard("no"), 1, OVER),
        (InvalidArguments("no"), 1, OVER),
        (Retry(0.5), 1, Again(0.5, 1)),
        (Retry(0), 2, Again(0.0, 2)),
        (Retry(), 1, Again(7.0, 1)),
        (Retry(0.5), 3, OVER),
        (Snooze(60), 1, Again(60.0, 0)),
        (Snooze(60), 3, Again(60.0, 2)),
        (Snooze(0), 1, Again(SHORTEST_SNOOZE, 0)),
        (ExceptionGroup("both", [Snooze(0), Snooze(0.01)]), 1, Again(SHORTEST_SNOOZE, 0)),
        (NotBegun(), 1, Again(0.0, 0)),
        (Snooze(1e300), 1, Again(100 * 366 * 86_400.0, 0)),
        (Retry(timedelta(minutes=1)), 1, Again(60.0, 1)),
    ],
)
def test_what_follows(error: BaseException, attempt: int, follows: object) -> None:
    assert decide(error, attempt, rules(), 0.5) == follows


def test_retry_on_lists_what_is_retried_subclasses_included() -> None:
    only = rules(retry_on=("builtins.OSError",))
    assert decide(Late(), 1, only, 0.5) == Again(7.0, 1)
    assert decide(ValueError(), 1, only, 0.5) is OVER
    assert decide(Retry(1.0), 1, only, 0.5) == Again(1.0, 1)


def test_give_up_on_wins_over_retry_on() -> None:
    both = rules(retry_on=("builtins.OSError",), give_up_on=(f"{__name__}.Late",))
    assert decide(OSError(), 1, both, 0.5) == Again(7.0, 1)
    assert decide(Late(), 1, both, 0.5) is OVER


def test_jitter_moves_the_backoff_and_not_what_the_handler_asked_for() -> None:
    jittery = Policy(backoff=backoff.constant(10.0, jitter=0.2))
    assert decide(ValueError(), 1, jittery, 0.0) == Again(9.0, 1)
    assert decide(ValueError(), 1, jittery, 0.5) == Again(10.0, 1)
    assert decide(Retry(10.0), 1, jittery, 0.0) == Again(10.0, 1)


def test_a_function_is_a_backoff_and_its_nonsense_does_no_harm() -> None:
    for answer, delay in ((4, 4.0), (10**400, 100 * 366 * 86_400.0), (1e300, 100 * 366 * 86_400.0)):
        assert decide(ValueError(), 2, Policy(backoff=lambda attempt, answer=answer: answer), 0.3) == Again(delay, 2)


def test_policy_of_nothing_is_the_default() -> None:
    assert policy({}, {}) == Policy(DEFAULT_ATTEMPTS, DEFAULT_BACKOFF, None, None, ())


def test_policy_what_is_stored_with_the_job_wins_over_the_handler() -> None:
    handler = check(
        {"attempts": 5, "timeout": 30, "backoff": EXACT, "retry_on": OSError, "give_up_on": KeyError}, "handler"
    )
    assert policy(handler, {}) == Policy(5, EXACT, 30.0, ("builtins.OSError",), ("builtins.KeyError",))
    job = check({"attempts": 1, "timeout": 2, "backoff": backoff.linear(1.0), "retry_on": ValueError}, "job")
    stored = json.loads(json.dumps(to_stored(job, "job")))
    assert policy(handler, stored) == Policy(
        1, backoff.linear(1.0), 2.0, ("builtins.ValueError",), ("builtins.KeyError",)
    )
