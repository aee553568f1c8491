"""What is to run when a job has failed for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias
from uuid import UUID


class Failed(NamedTuple):
    """A job that has just failed for good."""

    id: UUID
    type: str
    on_failure: str | None
    """What its own ``on_failure=`` says, as stored (JSON)."""


class Call(NamedTuple):
    """A job to be dispatched because another has failed."""

    type: str
    queue: str
    priority: int
    args: str
    """JSON."""
    options: str | None
    """JSON."""
    delay: float | None


Calls: TypeAlias = "Callable[[Failed], Call | None]"
"""Who says what runs after a job's failure, if anything does."""


def nothing(_: Failed) -> None:
    """Nothing runs after a failure."""
    return
