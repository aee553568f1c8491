"""Lists for people: flows, jobs, workers, and what was done to them by hand."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import UUID

from flowrun import codec
from flowrun.client import bulk, control
from flowrun.client.statuses import JobStatus
from flowrun.core.states import TERMINAL, FlowState, JobState, Outcome
from flowrun.errors import ConfigurationError, NotFound, NotPossible
from flowrun.sealing import shown
from flowrun.store import reads
from flowrun.store.bulk import By
from flowrun.store.prune import Filter

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
class Trouble:
    """What a worker complains of, as of its last heartbeat."""

    kind: Literal["handler", "thread", "loop", "task", "database", "end"]
    """``handler``: it ignores its cancellation, and was left behind; ``thread``: it goes on after its attempt is over;
    ``loop``: a handler blocks the event loop; ``task``: handlers left tasks behind, which were cancelled;
    ``database``: it refuses what the worker itself has to do, which tries again until it can;
    ``end``: handlers tried to end the worker, or ended what runs their attempts."""
    type: str | None
    """Of the job; None: the loop is blocked by no handler's own task."""
    job: UUID | None
    since: datetime
    """When that began; of ``task`` and ``end``, when it happened last."""
    count: int = 1
    """How many tasks, or times; how often it was tried."""
    what: str | None = None
    """Of the database: what cannot be done, and why."""

    def __str__(self) -> str:
        """In words."""
        seconds = (datetime.now(UTC) - self.since).total_seconds()
        if self.kind == "database":
            return f"cannot {self.what}; tried {self.count} times in {max(0.0, seconds):.0f} s"
        what = _TROUBLE[self.kind].format(count=self.count, s="" if self.count == 1 else "s")
        ago = " ago" if self.kind in ("task", "end") else ""
        return f"{self.type or 'something'} {what} {max(0.0, seconds):.0f} s{ago}"


_TROUBLE = {
    "handler": "ignores its cancellation since",
    "thread": "goes on in its thread since",
    "loop": "blocks the event loop since",
    "task": "left {count} task{s} behind, the last",
    "end": "tried to end the worker, or what runs in it, {count} time{s}, the last",
}


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
    trouble: Sequence[Trouble] = ()
    """What it complains of."""


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

    async def cancel(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        compensate: bool = True,
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Cancel all flows that pass the filters and have not ended, one after the other; their ids.

        Raises ConfigurationError without any filter.

            await app.flows.cancel(name="order", tag="trial", reason="the trial is over")
        """
        bulk.filtered("app.flows.cancel", name=name, tag=tag, since=since, until=until)

        async def one(id: UUID) -> bool:
            return await control.cancel(self._client, id, By(actor, reason), compensate=compensate) != "too late"

        return await self._each(("running", name, tag, since, until), one, dry_run=dry_run)

    async def retry(
        self,
        *,
        state: Literal["failed", "cancelled"] = "failed",
        name: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Run the failed nodes again of all flows that pass the filters and failed, or were cancelled; their ids.

        One that cannot (it was compensated) is left out.

            await app.flows.retry(name="order", since=yesterday)
        """
        _check("state", state, ("failed", "cancelled"))

        async def one(id: UUID) -> bool:
            return await control.retry(self._client, id, {}, By(actor, reason)) > 0

        return await self._each((state, name, tag, since, until), one, dry_run=dry_run)

    async def delete(
        self,
        *,
        state: FlowState | None = None,
        name: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> builtins.list[UUID]:
        """Remove all flows that pass the filters and have ended, with all that is known of them; their ids.

        Raises ConfigurationError without any filter.

            await app.flows.delete(name="probe", state="succeeded")
        """
        bulk.filtered("app.flows.delete", state=state, name=name, tag=tag, since=since, until=until)
        what = Filter(0.0, outcome_of(state), None, None, tag, name, since, until, 1)
        return (await bulk.remove(self._client, what, dry_run=dry_run)).flows

    async def _each(
        self, filters: Sequence[Any], verb: Callable[[UUID], Awaitable[bool]], *, dry_run: bool
    ) -> builtins.list[UUID]:
        """Those of the flows found with which ``verb`` did something."""
        found = [row[0] for row in await self._client.database.fetch("pick_flows", *filters)]
        if dry_run:
            return found
        done: builtins.list[UUID] = []
        for id in found:
            with suppress(NotFound, NotPossible):
                if await verb(id):
                    done.append(id)
        return done


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
        return [JobStatus(**shown.status(self._client.sealing, row)) for row in rows]

    async def cancel(
        self,
        *,
        state: JobState | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        flow: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Cancel all that pass the filters and have not ended; the ids of those cancelled, or asked to stop.

        In batches, and flow by flow: what follows in a flow, follows. ``dry_run``: only find them. Raises
        ConfigurationError without any filter.

            await app.jobs.cancel(type="send_email", state="ready", reason="wrong text", dry_run=True)
        """
        filters = {"type": type, "queue": queue, "tag": tag, "flow": as_filter(flow), "since": since, "until": until}
        bulk.filtered("app.jobs.cancel", state=state, **filters)
        _check("state", state, sorted(set(get_args(JobState)) - TERMINAL))
        found = await reads.picked(self._client.database, "pick_open", state, *filters.values())
        if dry_run:
            return [row[0] for row in found]
        return await bulk.cancel(self._client, found, By(actor, reason))

    async def retry(
        self,
        *,
        state: Literal["failed", "cancelled"] = "failed",
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        flow: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        args: Mapping[str, Any] | None = None,
        drop: Sequence[str] = (),
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Run all handlers' jobs again that pass the filters and failed, or were cancelled; the ids of those that do.

        In a flow, what was skipped because of them is decided again. Those that were discarded are left out, and those
        whose flow was compensated. ``args`` replace arguments of each, those named by ``drop`` are taken out. Raises
        InvalidArguments where a handler is known here that does not take the arguments.

            await app.jobs.retry(type="send_email", since=yesterday, dry_run=True)
        """
        _check("state", state, ("failed", "cancelled"))
        ended = (None, None, bulk.ALL)
        found = await reads.picked(
            self._client.database, "pick_ended", state, type, queue, tag, None, as_filter(flow), since, until, *ended
        )
        if dry_run:
            return [row[0] for row in found]
        return await bulk.retry(self._client, found, args, drop, By(actor, reason))

    async def delete(
        self,
        *,
        state: JobState | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> builtins.list[UUID]:
        """Remove all that pass the filters and have ended, with all that is known of them; their ids.

        Nodes of flows stay: a flow is removed as a whole, by ``app.flows.delete``. What has not ended is to be
        cancelled first. Raises ConfigurationError without any filter.

            await app.jobs.delete(type="probe", state="succeeded")
        """
        bulk.filtered("app.jobs.delete", state=state, type=type, queue=queue, tag=tag, since=since, until=until)
        what = Filter(0.0, outcome_of(state), type, queue, tag, None, since, until, 0)
        return (await bulk.remove(self._client, what, dry_run=dry_run)).jobs


class Workers:
    """``app.workers``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> builtins.list[WorkerStatus]:
        """Workers that live, the oldest first."""
        return [worker_status(row) for row in await reads.list_workers(self._client.database)]


def worker_status(row: Mapping[str, Any]) -> WorkerStatus:
    """A worker as it is read."""
    told = codec.look(row["trouble"])
    found = [_trouble(one) for one in told] if isinstance(told, list) else []
    return WorkerStatus(**{**row, "trouble": [one for one in found if one is not None]})


def _trouble(stored: Any) -> Trouble | None:
    """None: a kind that this version does not know, or nothing that flowrun writes."""
    try:
        job, since = stored["job"], datetime.fromisoformat(stored["since"])
        if stored["kind"] not in (*_TROUBLE, "database") or since.tzinfo is None:
            return None
        return Trouble(
            stored["kind"], stored["type"], None if job is None else UUID(job), since, int(stored["times"]),
            stored.get("what"),
        )  # fmt: skip
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def outcome_of(state: str | None) -> Outcome | None:
    """The outcome of what has ended so. Raises ConfigurationError for a state that is none."""
    _check("state", state, sorted(TERMINAL))
    return None if state is None else Outcome[state.upper()]


def as_id(id: UUID | str) -> UUID:
    """An id as given, or as text. Raises ConfigurationError."""
    try:
        return id if isinstance(id, UUID) else UUID(id)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"an id is a UUID; got {codec.clean_text(str(id), 80)!r}") from None


def as_filter(id: UUID | str | None) -> UUID | None:
    """The same, or nothing where nothing was given: of a list that is not narrowed by it."""
    return None if id is None else as_id(id)


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
