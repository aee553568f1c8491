"""Settings: what can be set, from where, and what is allowed. No behaviour."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import isfinite
from typing import TypedDict

from flowrun.encryption import Codec, check_codec
from flowrun.errors import ConfigurationError
from flowrun.redaction import Redact, redact

_MIB = 1024 * 1024


class SettingsOptions(TypedDict, total=False):
    """The fields of :class:`Settings`, as keyword arguments."""

    schema: str
    listen_dsn: str | None
    pooler: bool
    pool_size: int
    lease: float
    poll: float
    max_payload: int
    error_text: int
    crash_limit: int
    max_lineage: int | None
    processes: int | None
    block_limit: float
    redact: Redact | None
    codec: Codec | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How flowrun runs. Times are seconds."""

    schema: str = "flowrun"
    """The PostgreSQL schema that holds everything."""
    listen_dsn: str | None = field(default=None, repr=False)
    """Where to LISTEN, when ``dsn`` leads through a pooler in transaction mode."""
    pooler: bool = False
    """``dsn`` leads through a pooler in transaction mode: no prepared statements, no session settings, no LISTEN."""
    pool_size: int = 10
    """Connections that dispatching and reading share."""
    lease: float = 30.0
    """How long after its last heartbeat a worker's jobs are given to others."""
    poll: float = 5.0
    """How often an idle worker looks for work that no notification announced."""
    max_payload: int = _MIB
    """Largest arguments or result of a job, in bytes of JSON."""
    error_text: int = 20_000
    """Longest message or traceback kept of a failed attempt, in characters."""
    crash_limit: int = 5
    """How often a job may be lost with a worker that died, before it has failed: it may be what kills them."""
    max_lineage: int | None = 10_000
    """How many jobs may have dispatched one another in a row, from inside their handlers; None: any number. One that is
    dispatched with a delay of a second or more, or ``run_at``, begins anew: what comes back each hour goes on."""
    block_limit: float = 120.0
    """How long a handler may block the event loop before its worker gives up all its jobs: it sends no heartbeat until
    the loop runs again."""
    processes: int | None = None
    """How many processes a worker has for handlers with ``process=True`` (default: one for each core it may use)."""

    redact: Redact | None = field(default=redact, repr=False)
    """What takes secrets out of errors and tracebacks before they are stored or logged; None: nothing does."""
    codec: Codec | None = field(default=None, repr=False)
    """What encrypts arguments, results and whatever else a program gives before it is stored; None: nothing does."""

    def __post_init__(self) -> None:
        for name, low, high in (("lease", 0.5, 86_400.0), ("poll", 0.05, 3_600.0), ("block_limit", 1.0, 86_400.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise ConfigurationError(f"{name} must be a number of seconds; got {value!r}")
            if not low <= value <= high:
                raise ConfigurationError(f"{name} must be between {low} and {high} seconds; got {value!r}")
        least = {"pool_size": 1, "max_payload": 64, "error_text": 100, "crash_limit": 1, "processes": 1}
        if self.processes is None:
            del least["processes"]
        if self.max_lineage is not None:
            least["max_lineage"] = 1
        for name, lowest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ConfigurationError(f"{name} must be a whole number, at least {lowest}; got {value!r}")

        if self.redact is not None and not callable(self.redact):
            raise ConfigurationError(f"redact must be a function from text to text, or None; got {self.redact!r}")
        check_codec(self.codec)

    @property
    def heartbeat(self) -> float:
        """Seconds between heartbeats: three may be late before the lease is lost."""
        return self.lease / 4


def dsn_from_environment() -> str | None:
    """``FLOWRUN_DSN``, if it is set."""
    return os.environ.get("FLOWRUN_DSN") or None
