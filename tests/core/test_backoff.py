"""How long a failed attempt waits for the next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun import ConfigurationError, backoff
from flowrun.core.backoff import from_dict, spread
from flowrun.core.outcome import DEFAULT_BACKOFF

FEW = settings(max_examples=50, deadline=None)


def test_constant() -> None:
    assert [backoff.constant(2.5)(attempt) for attempt in (1, 2, 30)] == [2.5, 2.5, 2.5]


def test_linear() -> None:
    assert [backoff.linear(10.0, cap=25.0)(attempt) for attempt in (1, 2, 3, 30)] == [10.0, 20.0, 25.0, 25.0]


def test_exponential() -> None:
    assert [backoff.exponential(2.0, cap=300.0)(attempt) for attempt in (1, 2, 3, 9)] == [2.0, 4.0, 8.0, 300.0]
    assert [backoff.exponential(10.0)(attempt) for attempt in (1, 2, 3)] == [10.0, 20.0, 40.0]
    assert [backoff.exponential(5.0, 3.0, cap=100.0)(attempt) for attempt in (1, 2, 3, 4)] == [5.0, 15.0, 45.0, 100.0]
    assert [backoff.exponential(7.0, factor=1)(attempt) for attempt in (1, 2, 30)] == [7.0, 7.0, 7.0]


def test_the_default_backoff_is_the_powers_of_two_up_to_an_hour() -> None:
    assert [DEFAULT_BACKOFF(attempt) for attempt in (1, 2, 3, 11, 12, 99)] == [2.0, 4.0, 8.0, 2048.0, 3600.0, 3600.0]


@pytest.mark.parametrize("base", [0.0, 0.5, 1.2, 2.0, 10.0])
def test_an_exponential_backoff_stored_as_powers_of_its_base_keeps_its_meaning(base: float) -> None:
    policy = from_dict({"kind": "exponential", "base": base, "cap": 300.0, "jitter": 0.0})
    assert [policy(attempt) for attempt in range(1, 6)] == [
        pytest.approx(min(base**attempt, 300.0)) for attempt in range(1, 6)
    ]


def test_a_stored_exponential_backoff_begins_with_steps_that_older_workers_read() -> None:
    stored = backoff.exponential(10.0, cap=100.0, jitter=0.0).to_dict()
    assert (stored["kind"], stored["seconds"][:5], stored["jitter"]) == ("steps", [10.0, 20.0, 40.0, 80.0, 100.0], 0.0)


def test_steps() -> None:
    assert [backoff.steps(1, 5, 30)(attempt) for attempt in (1, 2, 3, 4, 99)] == [1.0, 5.0, 30.0, 30.0, 30.0]
    with pytest.raises(ConfigurationError, match="one number of seconds at least"):
        backoff.steps()


def test_exponential_never_overflows() -> None:
    assert backoff.exponential(10.0, cap=60.0)(32_000) == 60.0
    assert backoff.exponential(0.0, 10.0)(32_000) == 0.0
    assert backoff.exponential(1e300, 10.0)(300) == 86_400.0


@pytest.mark.parametrize(
    "policy",
    [backoff.constant(1.0), backoff.linear(2.0, cap=9.0), backoff.exponential(3.0), backoff.steps(1, 4)]
    + [backoff.exponential(2.0), backoff.exponential(0.1, 1.5, cap=60.0, jitter=0.0)],
)
def test_stored_and_read_again(policy: Any) -> None:
    again = from_dict(json.loads(json.dumps(policy.to_dict())))
    assert again == policy
    assert [again(attempt) for attempt in range(1, 9)] == [policy(attempt) for attempt in range(1, 9)]


@FEW
@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_half_its_share(seconds: float, jitter: float, draw: float) -> None:
    moved = spread(seconds, jitter, draw)
    assert seconds * (1 - jitter / 2) - 1e-6 <= moved <= seconds * (1 + jitter / 2) + 1e-6


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), True, "1", None])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (backoff.constant, "seconds"),
        (backoff.linear, "seconds"),
        (lambda value: backoff.linear(1.0, cap=value), "cap"),
        (backoff.exponential, "first"),
        (lambda value: backoff.steps(1.0, value), "steps"),
        (lambda value: backoff.exponential(cap=value), "cap"),
    ],
)
def test_refused_seconds(make: Any, named: str, wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=f"backoff {named} must be a number of seconds"):
        make(wrong)


@pytest.mark.parametrize("wrong", [0.9, -1, float("nan"), float("inf"), True, "2", None])
def test_refused_factor(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="backoff factor must be a number, 1 or more"):
        backoff.exponential(1.0, wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), True, "0.1"])
def test_refused_jitter(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="jitter must be between"):
        backoff.constant(1.0, jitter=wrong)
