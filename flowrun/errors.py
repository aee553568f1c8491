"""Every exception flowrun raises.

FlowrunError
├── ConfigurationError          a setting cannot work (also ValueError)
├── InvalidArguments            arguments do not fit a handler, or JSON cannot carry them (also ValueError)
├── InvalidFlow                 a flow cannot be dispatched as written (also ValueError)
├── LineageTooDeep              a job dispatched a job that dispatched a job ... more often than max_lineage allows
├── DuplicateKey                the key is held by another job or flow, and on_conflict="raise"
├── UnknownHandler              no handler of that type is registered (also LookupError)
├── ProcessDied                 the process of a handler with process=True ended before the handler did
├── LeaseLost                   a handler's job is somebody else's by now, or has ended
├── NotPossible                 a job or flow is not in a state in which that can be done
├── NotFound                    no job or flow with that id is stored (also LookupError)
├── NotStorable                 JSON cannot carry a value, or it is too large (also ValueError)
├── NotReadable                 what is stored encrypted cannot be opened here
├── DatabaseError
│   ├── DatabaseUnavailable     PostgreSQL cannot be reached
│   │   └── PoolExhausted       all connections of the pool are in use, for too long (also TimeoutError)
│   ├── MigrationNeeded         the schema is missing or older than this flowrun
│   ├── SchemaTooNew            the schema was made by a newer flowrun
│   └── EmbeddedPostgresError   the embedded PostgreSQL cannot be found or started
└── RunError                    what waiting for a result can raise
    ├── JobFailed
    ├── JobCancelled
    ├── JobSkipped
    ├── FlowFailed
    └── FlowCancelled

HandlerSignal                   raised by handlers to say how an attempt ends (not an error)
├── Discard
├── Retry
└── Snooze
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "Discard",
    "DuplicateKey",
    "EmbeddedPostgresError",
    "FlowCancelled",
    "FlowFailed",
    "FlowrunError",
    "HandlerSignal",
    "InvalidArguments",
    "InvalidFlow",
    "JobCancelled",
    "JobFailed",
    "JobSkipped",
    "LeaseLost",
    "LineageTooDeep",
    "MigrationNeeded",
    "NotFound",
    "NotPossible",
    "NotReadable",
    "NotStorable",
    "PoolExhausted",
    "ProcessDied",
    "Retry",
    "RunError",
    "SchemaTooNew",
    "Snooze",
    "UnknownHandler",
]


class FlowrunError(Exception):
    """The base of every error flowrun raises."""


class ConfigurationError(FlowrunError, ValueError):
    """A setting, option or name cannot work; the message says which and what is allowed."""


class InvalidArguments(FlowrunError, ValueError):
    """A job's arguments do not fit its handler, or JSON cannot carry them; names the argument."""


class InvalidFlow(FlowrunError, ValueError):
    """A flow cannot be dispatched as written (a cycle, a foreign node, a duplicate name); names the nodes."""


class LineageTooDeep(FlowrunError):
    """Jobs have dispatched one another, each without delay, more often than ``max_lineage`` allows: perhaps for ever.

    The job whose handler dispatches fails by it at once, without retries.
    """


class DuplicateKey(FlowrunError):
    """The key of a dispatch with ``on_conflict="raise"`` is held; ``id`` is the job or flow that has it."""

    def __init__(self, what: str, key: str, id: UUID) -> None:
        super().__init__(f"{what} with key {key!r} was dispatched already: {id}")
        self.key = key
        self.id = id


class UnknownHandler(FlowrunError, LookupError):
    """No handler of that type is registered in this process."""


class NotFound(FlowrunError, LookupError):
    """No job, flow or node of that id or name is stored."""


class ProcessDied(FlowrunError):
    """The process of a handler with ``process=True`` ended before the handler did; the message says how."""


class LeaseLost(FlowrunError):
    """The job is somebody else's by now, or has ended: what its handler does counts no more."""


class NotPossible(FlowrunError):
    """The job or flow is not in a state in which that can be done."""


class NotReadable(FlowrunError):
    """What is stored is encrypted and cannot be opened: its key is not known here, it was changed, or moved here.

    Not caught by its handler, it fails the job at once: it is in the dead letter, to be retried where the key is known.
    """


class NotStorable(FlowrunError, ValueError):
    """JSON cannot carry a value; ``path`` says where in it, ``reason`` why. Never holds the value itself.

    Not caught by its handler, it fails the job at once, as a result that cannot be stored does.
    """

    def __init__(self, path: str, reason: str, *, foreign: bool = False, what: str = "") -> None:
        where = " at ".join(part for part in (what, repr(path) if what and path else path) if part)
        super().__init__(f"{where}: {reason}" if where else reason)
        self.path = path
        self.reason = reason
        self.foreign = foreign
        """It is of a type JSON does not have; an annotation may say how to write it."""


class DatabaseError(FlowrunError):
    """PostgreSQL cannot be used as it is."""


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL cannot be reached; the message names host and database, never the password."""


class PoolExhausted(DatabaseUnavailable, TimeoutError):
    """All connections of the pool were in use for too long: more is asked at once than ``pool_size`` can carry."""


class MigrationNeeded(DatabaseError):
    """The schema is missing or older than this flowrun; the message has the command to run."""


class SchemaTooNew(DatabaseError):
    """The schema was made by a newer flowrun than this one."""


class EmbeddedPostgresError(DatabaseError):
    """The embedded PostgreSQL cannot be found or started; the message says what to install or set."""


class RunError(FlowrunError):
    """A job or a flow ended without success."""


class JobFailed(RunError):
    """The job failed for good.

    ``error_type`` is the name of the handler's exception, ``message`` its text, ``attempts`` how often it ran.
    """

    def __init__(
        self, type: str, id: UUID, *, error_type: str, message: str, traceback: str | None = None, attempts: int = 0
    ) -> None:
        super().__init__(f"job {type!r} ({id}) failed after {attempts} attempt(s): {error_type}: {message}")
        self.type = type
        self.id = id
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
        self.attempts = attempts


class JobCancelled(RunError):
    """The job was cancelled before it could succeed."""


class JobSkipped(RunError):
    """The job never ran, because what it waited for can no longer happen."""


class FlowFailed(RunError):
    """A job of the flow that is not optional failed; ``failed`` names the nodes."""

    def __init__(self, name: str, id: UUID, failed: Sequence[str], detail: str = "") -> None:
        nodes = ", ".join(failed) or "an unnamed node"
        super().__init__(f"flow {name!r} ({id}) failed: {nodes}" + (f" ({detail})" if detail else ""))
        self.name = name
        self.id = id
        self.failed: tuple[str, ...] = tuple(failed)


class FlowCancelled(RunError):
    """The flow was cancelled before it could succeed."""


class HandlerSignal(Exception):
    """Raised by a handler to say how the attempt ends."""


class Discard(HandlerSignal):
    """Fail the job now, without another attempt.

    >>> raise Discard("the order was deleted")
    Traceback (most recent call last):
    flowrun.errors.Discard: the order was deleted
    """

    def __init__(self, reason: str = "discarded by its handler") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(HandlerSignal):
    """Run the job again after ``delay`` seconds; this attempt counts (default: the job's own backoff).

    Raises ConfigurationError for a delay that is no number of seconds, 0 or more.
    """

    def __init__(self, delay: float | timedelta | None = None, reason: str = "retry asked for by its handler") -> None:
        super().__init__(reason)
        self.delay: float | None = None if delay is None else _seconds("Retry", delay)
        self.reason = reason


class Snooze(HandlerSignal):
    """Run the job again after ``delay`` seconds; no attempt is used. With less than 0.05 it is 0.05: a job that snoozes
    is not stopped by its attempts, and would spin. Raises ConfigurationError as ``Retry`` does."""

    def __init__(self, delay: float | timedelta) -> None:
        self.delay: float = _seconds("Snooze", delay)
        super().__init__(f"snoozed for {self.delay:g} s")


def _seconds(what: str, delay: object) -> float:
    if isinstance(delay, timedelta):
        delay = delay.total_seconds()
    number = isinstance(delay, int | float) and not isinstance(delay, bool)
    if not number or not 0 <= cast(float, delay) < float("inf"):
        shown = repr(delay)[:40] if isinstance(delay, int | float) else type(delay).__name__
        raise ConfigurationError(
            f"{what}(delay) takes a number of seconds, 0 or more; got {shown}; for a moment that may have passed: "
            f"{what}(max(0.0, seconds))"
        )
    return float(min(cast(float, delay), 1e12))
