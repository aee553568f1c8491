"""How long a failed attempt waits for the next one.

>>> exponential(2.0, cap=300.0, jitter=0.0)(3)
8.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Protocol

from flowrun.errors import ConfigurationError

__all__ = ["Backoff", "Policy", "constant", "exponential", "from_dict", "linear", "steps"]

Backoff = Callable[[int], float]
"""From the number of the attempt that failed (1 for the first) to the seconds until the next."""

_DAY = 86_400.0
_STEPS = 12
"""How many delays of an exponential backoff are stored one by one."""


class Policy(Protocol):
    """A backoff that can be stored with a job."""

    @property
    def jitter(self) -> float:
        """The share of the delay that is random."""
        ...

    def __call__(self, attempt: int) -> float:
        """Seconds to wait after ``attempt`` failed, before jitter."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON can carry it."""
        ...


@dataclass(frozen=True, slots=True)
class _Constant:
    seconds: float
    jitter: float = 0.1

    def __call__(self, attempt: int) -> float:
        return self.seconds

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "constant", **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Linear:
    seconds: float
    cap: float = _DAY
    jitter: float = 0.1

    def __call__(self, attempt: int) -> float:
        return min(self.seconds * attempt, self.cap)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "linear", **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Exponential:
    first: float
    factor: float = 2.0
    cap: float = _DAY
    jitter: float = 0.1

    def __call__(self, attempt: int) -> float:
        try:
            return min(self.first * self.factor ** (attempt - 1), self.cap)
        except OverflowError:
            return self.cap if self.first else 0.0

    def to_dict(self) -> dict[str, Any]:
        if self.first == self.factor:
            return {"kind": "exponential", "base": self.first, "cap": self.cap, "jitter": self.jitter}
        # A worker of the version before reads the steps and passes by the rest.
        return {"kind": "steps", "seconds": [self(attempt) for attempt in range(1, _STEPS + 1)], **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Steps:
    seconds: tuple[float, ...]
    jitter: float = 0.1

    def __call__(self, attempt: int) -> float:
        return self.seconds[min(attempt, len(self.seconds)) - 1]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "steps", "seconds": list(self.seconds), "jitter": self.jitter}


def constant(seconds: float, *, jitter: float = 0.1) -> Policy:
    """Wait ``seconds`` after every failed attempt.

    ``jitter`` is the share of the delay that is random (0.1: between 95 % and 105 % of it), so that jobs that failed
    together do not come back together.

    >>> constant(5.0)(7)
    5.0
    """
    return _Constant(_seconds("seconds", seconds), _share(jitter))


def linear(seconds: float, *, cap: float = _DAY, jitter: float = 0.1) -> Policy:
    """Wait ``seconds`` times the number of the failed attempt, at most ``cap`` seconds.

    >>> linear(10.0)(3)
    30.0
    """
    return _Linear(_seconds("seconds", seconds), _seconds("cap", cap), _share(jitter))


def exponential(first: float = 2.0, factor: float = 2.0, *, cap: float = _DAY, jitter: float = 0.1) -> Policy:
    """Wait ``first`` seconds after the first failed attempt, and ``factor`` times as long after each further one, at
    most ``cap`` seconds (floats). ``jitter`` is the share of a delay that is random, 0.0 to 1.0. Raises
    ConfigurationError for a negative delay or a ``factor`` below 1.

    >>> [exponential(10.0)(attempt) for attempt in (1, 2, 3)]
    [10.0, 20.0, 40.0]
    >>> exponential(2.0, cap=300.0)(20)
    300.0
    """
    return _Exponential(_seconds("first", first), _factor(factor), _seconds("cap", cap), _share(jitter))


def steps(*seconds: float, jitter: float = 0.1) -> Policy:
    """Wait these seconds, one after the other; the last again and again. ``backoff=[1, 5, 30]`` says the same.

    >>> [steps(1, 5, 30, jitter=0.0)(attempt) for attempt in (1, 2, 3, 4)]
    [1.0, 5.0, 30.0, 30.0]
    """
    if not seconds:
        raise ConfigurationError("backoff steps must be one number of seconds at least")
    return _Steps(tuple(_seconds("steps", one) for one in seconds), _share(jitter))


def from_dict(stored: dict[str, Any]) -> Policy:
    """The policy that ``to_dict`` wrote."""
    kind, cap, jitter = stored["kind"], stored.get("cap", _DAY), stored["jitter"]
    if kind == "constant":
        return _Constant(stored["seconds"], jitter)
    if kind == "linear":
        return _Linear(stored["seconds"], cap, jitter)
    if kind == "exponential":  # `base` to the power of the attempt's number
        return _Exponential(stored["base"], stored["base"], cap, jitter)
    if "factor" in stored:
        return _Exponential(stored["first"], stored["factor"], cap, jitter)
    return steps(*stored["seconds"], jitter=jitter)


def spread(seconds: float, jitter: float, draw: float) -> float:
    """``seconds`` moved by up to half of its ``jitter`` share to either side; ``draw`` is a random number in [0, 1)."""
    return max(0.0, seconds * (1.0 + jitter * (draw - 0.5)))


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ConfigurationError(f"backoff {name} must be a number of seconds, 0 or more; got {value!r}")
    return float(value)


def _factor(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 1:
        raise ConfigurationError(f"backoff factor must be a number, 1 or more; got {value!r}")
    return float(value)


def _share(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"backoff jitter must be between 0.0 and 1.0; got {value!r}")
    return float(value)
