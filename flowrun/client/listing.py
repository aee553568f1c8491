"""Lists for people: flows, jobs, workers, and what was done to them by hand."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

from flowrun import codec
from flowrun.client.runs import JobStatus
from flowrun.core.states import FlowState, JobState
from flowrun.errors import ConfigurationError
from flowrun.store import reads

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

MOST = 10_000
"""The longest list."""


@dataclass(frozen=True, slots=True)
class FlowSummary:
    """A flow in a list; its jobs are in :class:`FlowStatus`."""

    id: UUID
    name: str
    tags: Sequence[str]
    state: FlowState
    created_at: datetime
    finished_at: datetime | None
    detail: str | None
    dispatched_by: UUID | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that lives."""

    id: UUID
    name: str
    """Its host and process."""
    queues: Sequence[str]
    types: Sequence[str]
    concurrency: int
    started_at: datetime
    jobs: int
    """Those it has claimed and not settled."""


class Flows:
    """``app.flows``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(
        self,
        *,
        state: FlowState | None = None,
        name: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> builtins.list[FlowSummary]:
        """Outermost flows, the newest first. ``before``: the id of the last one seen, for the next page.

        for flow in await app.flows.list(state="failed", name="order"):
            print(flow.id, flow.created_at)
        """
        _check("state", state, get_args(FlowState))
        rows = await reads.list_flows(self._client.database, state, name, tag, since, until, before, most(limit))
        return [FlowSummary(**row) for row in rows]


class Jobs:
    """``app.jobs``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(
        self,
        *,
        state: JobState | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        flow: UUID | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> builtins.list[JobStatus]:
        """Jobs, alone or in flows, the newest first. ``before``: the id of the last one seen, for the next page.

        for job in await app.jobs.list(state="failed", queue="billing"):
            print(job.id, job.error)
        """
        _check("state", state, get_args(JobState))
        rows = await reads.list_jobs(
            self._client.database, state, type, queue, tag, flow, since, until, before, most(limit)
        )
        return [JobStatus(**row) for row in rows]


class Workers:
    """``app.workers``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> builtins.list[WorkerStatus]:
        """Workers that live, the oldest first."""
        return [WorkerStatus(**row) for row in await reads.list_workers(self._client.database)]


def as_id(id: UUID | str | None) -> UUID | None:
    """An id as given, or as text. Raises ConfigurationError."""
    try:
        return id if id is None or isinstance(id, UUID) else UUID(id)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"an id is a UUID; got {codec.clean_text(str(id), 80)!r}") from None


def most(limit: int) -> int:
    """``limit`` if a list may be so long. Raises ConfigurationError."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise ConfigurationError(f"limit= must be a whole number from 1 to {MOST:,}; got {limit!r}")
    return limit


def _check(what: str, value: Any, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise ConfigurationError(
            f"{what}= must be one of {', '.join(allowed)}; got {codec.clean_text(str(value), 80)!r}"
        )
