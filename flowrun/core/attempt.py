"""An attempt's two ends: the job as claimed, and how it came out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from flowrun.core.parents import Parents
from flowrun.core.states import Outcome


class Pending(Protocol):
    """What a running handler has dispatched and spawned, not written yet."""

    @property
    def size(self) -> int:
        """How many jobs these are, about."""
        ...

    def sealed(self) -> Any:
        """It as the settle writes it. Raises InvalidFlow or InvalidArguments."""
        ...


class Claimed:
    """A job in this worker's lease. On the hot path: plain slots, read by position."""

    __slots__ = (
        "args", "attempt", "begun", "bindings", "flow_id", "given_back", "held_up", "id", "interrupted", "kind",
        "lease", "name", "options", "outbox", "over", "parents", "place", "priority", "queue", "scope", "settled",
        "sources", "swept", "type", "values",
    )  # fmt: skip

    def __init__(self, row: Any, lease: int) -> None:
        (
            self.id, self.attempt, self.flow_id, self.kind, self.name, self.queue, self.type, self.args, self.sources,
            self.bindings, self.priority, self.options,
        ) = row  # fmt: skip
        self.lease = lease
        self.interrupted = False
        """It was asked to stop."""
        self.given_back = False
        """Its worker ends: a cancellation is the worker's, and nothing comes of the attempt."""
        self.swept = False
        """Its code has tried to end what runs it: by cancelling all tasks, or by a signal."""
        self.held_up = False
        """Its queue was paused: where the handler itself has not begun, it does not."""
        self.begun = False
        """That its handler is called was noted: it must not run twice."""
        self.over = False
        """The attempt has ended: what its handler left behind dispatches for itself."""
        self.settled = False
        """Its handler has settled it, in a transaction of its own."""
        self.outbox: Pending | None = None
        """What its handler dispatched and spawned so far."""
        self.scope: Any = None
        """The cancel scope it runs in, where it has one."""
        self.values: list[str | None] | None = None
        """The results of ``sources``, once they are known."""
        self.parents: Parents | None = None
        """Of a node whose handler takes the running job."""
        self.place: Any = None
        """Under a limit: where its worker counts how many run."""


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
    detail: str | None = None
    """What else it tells (JSON): its notes, what caused it, its own ``detail``."""


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
    more: Any = None
    """What else its settle does: an Outbox, an Expansion, or a gate that is Parked (see core.growth)."""
    flow_id: UUID | None = None
    """The flow that ``more`` changes."""
    interrupted: bool = False
    """Its handler was asked to stop, and ended so. It comes back where nobody wants that any more."""
    survived: bool = False
    """It was lost with its worker before, and this attempt has ended like any other."""


def handed_back(job: Claimed, delay: float = 0.0) -> Ending:
    """The end of an attempt that has not begun: it uses none. It comes back after ``delay`` seconds."""
    return Ending(job.id, job.lease, job.attempt, None, delay=delay, attempts_used=job.attempt - 1)


Attempted: TypeAlias = "Success | Ending"
"""How an attempt came out."""
