"""Jobs, attempts and flows as they stand: what people look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from flowrun.client.near import no_node
from flowrun.core.states import FlowState, JobState


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a job that did not succeed."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime
    error_type: str
    message: str
    traceback: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What else the exception told: its ``notes``, its ``cause``, what it has by the name ``detail``."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What somebody did to a job or a flow."""

    verb: str
    """cancel, retry, resolve, skip, signal, add ..."""
    actor: str | None
    reason: str | None
    at: datetime
    job_id: UUID | None
    node: str | None
    """The name of the node it was done to."""
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as it stands."""

    id: UUID
    flow_id: UUID | None
    name: str | None
    """The node's name in its flow."""
    type: str
    queue: str
    priority: int
    state: JobState
    attempt: int
    """The number of the last attempt; 0 before the first."""
    optional: bool
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    """When the last attempt was claimed."""
    finished_at: datetime | None
    worker: str | None
    error_type: str | None
    error: str | None
    """Why it failed, was skipped or cancelled."""
    cause: UUID | None
    """Of a skipped job: the node because of which, one of ``FlowStatus.nodes``. Where that is a flow, the first node
    that kept it from succeeding, or, where none did, the one that ended last; None where it is empty."""
    progress: float | None
    """The part of its work that is done, 0 to 1, as its handler said last; None: it said nothing."""
    progress_message: str | None
    cancel_requested: bool
    """It was asked to stop and has not stopped yet."""
    dispatched_by: UUID | None
    """The job whose handler dispatched it."""
    schedule: str | None
    """The key of the schedule that dispatched it, or its flow."""
    scheduled_for: datetime | None
    """The tick it was dispatched for."""
    tags: Sequence[str]
    key: str | None
    """The key of its dispatch, while it holds that."""
    limit: int | None
    """How many with its ``limit_key`` may run at once; without one: of its type."""
    limit_key: str | None
    sequence: str | None
    """What it runs one at a time with."""
    fair_key: str | None
    """What its queue's workers go round between."""

    @property
    def attempts(self) -> int:
        """How many attempts it has had."""
        return self.attempt


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow as it stands, with all its jobs by name (``inner/step`` for those of a flow inside it)."""

    id: UUID
    name: str
    state: FlowState
    created_at: datetime
    finished_at: datetime | None
    detail: str | None
    """More about how it ended."""
    tags: Sequence[str]
    dispatched_by: UUID | None
    """The job whose handler dispatched it."""
    nodes: Mapping[str, JobStatus]

    def __getitem__(self, name: str) -> JobStatus:
        """The job of the node ``name``."""
        if name not in self.nodes:
            raise no_node(self.name, name, self.nodes)
        return self.nodes[name]
