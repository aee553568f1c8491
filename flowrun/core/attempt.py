"""An attempt's two ends: the job as claimed, and how it came out."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from flowrun.core.states import Outcome


class Claimed:
    """A job in this worker's lease. On the hot path: plain slots, read by position."""

    __slots__ = (
        "args", "attempt", "bindings", "flow_id", "id", "kind", "lease", "name", "options", "priority", "queue",
        "sources", "type", "values",
    )  # fmt: skip

    def __init__(self, row: Any, lease: int) -> None:
        (
            self.id, self.attempt, self.flow_id, self.kind, self.name, self.queue, self.type, self.args, self.sources,
            self.bindings, self.priority, self.options,
        ) = row  # fmt: skip
        self.lease = lease
        self.values: list[str | None] | None = None
        """The results of ``sources``, once they are known."""


class Success(NamedTuple):
    """A job that succeeded, with its result as JSON (None: it has none of its own)."""

    id: UUID
    lease: int
    attempt: int
    result: str | None


class Failure(NamedTuple):
    """An attempt that did not succeed, as it is kept."""

    error_type: str
    message: str
    traceback: str | None


class Ending(NamedTuple):
    """A job that leaves its lease in any way but plain success."""

    id: UUID
    lease: int
    attempt: int
    outcome: Outcome | None
    """How it ended; None: it comes back after ``delay``."""
    result: str | None = None
    failure: Failure | None = None
    """Kept as an attempt."""
    error: str | None = None
    """Kept with the outcome, as JSON."""
    delay: float = 0.0
    """Seconds until it comes back."""
    attempts_used: int = 0
    """What it comes back with."""


Attempted: TypeAlias = "Success | Ending"
"""How an attempt came out."""
