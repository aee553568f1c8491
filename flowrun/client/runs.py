"""What a dispatch gives back: a job or a flow as stored, to be waited for and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import UUID

from flowrun import codec
from flowrun.core.compile import END_TYPE
from flowrun.core.states import FlowState, JobState, Outcome
from flowrun.errors import FlowCancelled, FlowFailed, JobCancelled, JobFailed, JobSkipped, NotFound
from flowrun.store import reads
from flowrun.store.reads import OutcomeRow

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

R_co = TypeVar("R_co", covariant=True)


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
    """Of a skipped job: the parent because of which."""

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
    nodes: Mapping[str, JobStatus]

    def __getitem__(self, name: str) -> JobStatus:
        """The job of the node ``name``."""
        try:
            return self.nodes[name]
        except KeyError:
            raise NotFound(f"flow {self.name!r} has no node {name!r}; it has {', '.join(self.nodes)}") from None


class JobRun(Generic[R_co]):
    """A job as stored."""

    __slots__ = ("_client", "id", "type")

    def __init__(self, client: Client, id: UUID, type: str) -> None:
        self._client = client
        self.id = id
        self.type = type

    async def result(self, timeout: float | None = None) -> R_co:
        """What the handler returned, once it has.

        Waits at most ``timeout`` seconds (None: as long as it takes), then raises TimeoutError; the job goes on. Raises
        JobFailed, JobCancelled or JobSkipped when it ended so.
        """
        row = await self._client.waits.wait(self.id, timeout)
        if row.outcome is Outcome.SUCCEEDED:
            return cast(R_co, self._client.decode_result(self.type, row.result))
        raise await self._error(row)

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """The status once the job has ended, however it did. Raises TimeoutError after ``timeout`` seconds."""
        await self._client.waits.wait(self.id, timeout)
        return await self.status()

    async def status(self) -> JobStatus:
        """How the job stands now. Raises NotFound if it is no longer stored."""
        found = await reads.job(self._client.database, self.id)
        if found is None:
            raise NotFound(f"no job {self.id} is stored")
        return JobStatus(**found)

    async def attempts(self) -> list[Attempt]:
        """The attempts that did not succeed, the first one first."""
        return [Attempt(**row) for row in await reads.attempts(self._client.database, self.id)]

    async def _error(self, row: OutcomeRow) -> Exception:
        error = codec.load(row.error) if row.error else {}
        if row.outcome is Outcome.FAILED:
            past = await self.attempts()
            return JobFailed(
                self.type,
                self.id,
                error_type=error.get("type", "Exception"),
                message=error.get("message", ""),
                traceback=past[-1].traceback if past else None,
                attempts=row.attempt,
            )
        why = f": {error['message']}" if error.get("message") else ""
        if row.outcome is Outcome.SKIPPED:
            return JobSkipped(f"job {self.type!r} ({self.id}) was skipped{why}")
        return JobCancelled(f"job {self.type!r} ({self.id}) was cancelled{why}")

    def __repr__(self) -> str:
        """Type and id."""
        return f"<JobRun {self.type!r} {self.id}>"


class FlowRun:
    """A flow as stored. ``run["invoice"]`` is the job of the node of that name."""

    __slots__ = ("_client", "_nodes", "id", "name")

    def __init__(self, client: Client, id: UUID, name: str, nodes: Mapping[str, tuple[UUID, str]]) -> None:
        self._client = client
        self._nodes = nodes
        self.id = id
        self.name = name

    def __getitem__(self, name: str) -> JobRun[Any]:
        """The job of the node ``name``; for a flow as a node, the job that ends it. Raises NotFound."""
        try:
            id, type = self._nodes[name]
        except KeyError:
            raise NotFound(f"flow {self.name!r} has no node {name!r}; it has {', '.join(self._nodes)}") from None
        return JobRun(self._client, id, type)

    async def result(self, timeout: float | None = None) -> Any:
        """The result of the flow's output: its single last node's, else a dict of all last nodes' by name.

        A last node that did not run has ``None`` in the dict. Waits at most ``timeout`` seconds, then raises
        TimeoutError; the flow goes on. Raises FlowFailed (naming the failed nodes) or FlowCancelled.
        """
        row = await self._client.waits.wait(self.id, timeout)
        if row.outcome is Outcome.SUCCEEDED:
            return await self._result(row)
        failures = await reads.flow_failures(self._client.database, self.id)
        failed = [name for name, outcome, _ in failures if outcome is Outcome.FAILED]
        if row.outcome is Outcome.FAILED:
            raise FlowFailed(self.name, self.id, failed, _detail(failures))
        raise FlowCancelled(f"flow {self.name!r} ({self.id}) was {row.outcome.name.lower()}")

    async def wait(self, timeout: float | None = None) -> FlowStatus:
        """The status once the flow has ended, however it did. Raises TimeoutError after ``timeout`` seconds."""
        await self._client.waits.wait(self.id, timeout)
        return await self.status()

    async def status(self) -> FlowStatus:
        """How the flow and each of its jobs stand now. Raises NotFound if it is no longer stored."""
        found = await reads.flow(self._client.database, self.id)
        if found is None:
            raise NotFound(f"no flow {self.id} is stored")
        jobs = await reads.flow_jobs(self._client.database, self.id)
        return FlowStatus(
            id=found["id"],
            name=found["name"],
            state=found["state"],
            created_at=found["created_at"],
            finished_at=found["finished_at"],
            nodes={job["name"]: JobStatus(**job) for job in jobs},
        )

    async def _result(self, row: OutcomeRow) -> Any:
        if row.result is not None:
            output = await reads.flow_output(self._client.database, self.id)
            return self._client.decode_result(output or END_TYPE, row.result)
        sinks = await reads.flow_sinks(self._client.database, self.id)
        return {
            name: None if result is None else self._client.decode_result(type, result)
            for name, (type, result) in sinks.items()
        }

    def __repr__(self) -> str:
        """Name and id."""
        return f"<FlowRun {self.name!r} {self.id}>"


def _detail(failures: list[tuple[str, Outcome, str | None]]) -> str:
    for _, outcome, error in failures:
        if outcome is Outcome.FAILED and error:
            stored = codec.load(error)
            return f"{stored.get('type', 'Exception')}: {stored.get('message', '')}"
    return ""
