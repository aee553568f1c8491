"""Outcomes, conditions and the truth table that joins them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal

JobState = Literal["waiting", "scheduled", "ready", "running", "succeeded", "failed", "cancelled", "skipped"]
FlowState = Literal["running", "succeeded", "failed", "cancelled", "skipped"]

TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled", "skipped"})
"""The states a job or flow never leaves by itself."""

FIRST_TEST: Final = 5
"""Conditions stored with this number or a higher one are tests of the parent's result, numbered to be told apart."""


class Outcome(IntEnum):
    """How a job ended, for good. The numbers are stored."""

    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    SKIPPED = 4


class Condition(IntEnum):
    """What an edge asks of its parent. The numbers are stored."""

    SUCCEEDED = 0
    FAILED = 1
    FINISHED = 2
    SUCCEEDED_ITSELF = 3
    """As SUCCEEDED, but the failure of an optional parent does not count as success: for a flow's ``on_success``."""
    SUCCEEDED_OR_CANCELLED = 4
    """As SUCCEEDED, or cancelled: for a node that runs although its flow was cancelled (``cleanup=True``)."""


class Kind(IntEnum):
    """What runs a job: a handler, or flowrun itself. The numbers are stored."""

    HANDLER = 0
    END = 1
    """The end of a flow: its parents are the flow's sinks, its id is the flow's id, its outcome is the flow's."""
    JOIN = 2
    """A node without work: it holds a condition that one pair of counters cannot (``[a, any_of(b, c)]``)."""
    GATE = 3
    """Waits for a signal."""
    SLEEP = 4
    """Lets time pass."""
    MAP = 5
    """Becomes one job an item when its source is known; then, when those have ended, the list of their results."""
    VERDICT = 6
    """Where nodes can be compensated: the flow's outcome before its end, which waits for the compensations."""


class Deadline(IntEnum):
    """What must have happened by a moment. The numbers are stored."""

    START = 0
    """Of a job: its first attempt."""
    END = 1
    """Of a flow: its end."""


def satisfies(outcome: Outcome, condition: Condition, *, optional: bool) -> bool:
    """Whether a parent's outcome satisfies an edge (the truth table of the public contract)."""
    if condition is Condition.FINISHED:
        return True
    if condition is Condition.FAILED:
        return outcome is Outcome.FAILED
    if condition is Condition.SUCCEEDED_ITSELF:
        return outcome is Outcome.SUCCEEDED
    if condition is Condition.SUCCEEDED_OR_CANCELLED and outcome is Outcome.CANCELLED:
        return True
    return outcome is Outcome.SUCCEEDED or (outcome is Outcome.FAILED and optional)
