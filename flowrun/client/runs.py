"""What a dispatch gives back: a job or a flow as stored, to be waited for and looked at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import UUID

from flowrun import mint
from flowrun.client import control
from flowrun.client.events import Event, events
from flowrun.client.explain import Explanation, explain
from flowrun.client.near import no_node
from flowrun.client.statuses import Attempt, AuditEntry, FlowStatus, JobStatus
from flowrun.core.compile import END_TYPE
from flowrun.core.rows import Nodes
from flowrun.core.states import Outcome
from flowrun.errors import FlowCancelled, FlowFailed, FlowrunError, JobCancelled, JobFailed, JobSkipped, NotFound
from flowrun.sealing import shown
from flowrun.sealing.attempts import error_of
from flowrun.store import reads
from flowrun.store.bulk import By
from flowrun.store.control import Cancelled
from flowrun.store.reads import OutcomeRow

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.core.attempt import Claimed
    from flowrun.core.job import JobSpec

_NUMBER = re.compile("0|[1-9][0-9]{0,5}")

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class JobRun(Generic[R_co]):
    """A job as stored.

    ``duplicate`` is true where the dispatch wrote nothing, because its key was held by this job.
    """

    __slots__ = ("_client", "_kept_by", "duplicate", "id", "type")

    def __init__(
        self, client: Client, id: UUID, type: str, *, duplicate: bool = False, kept_by: Claimed | None = None
    ) -> None:
        self._client = client
        self._kept_by = kept_by
        self.id: UUID = id
        self.type: str = type
        self.duplicate: bool = duplicate

    async def result(self, timeout: float | None = None) -> R_co:
        """What the handler returned, once it has.

        Waits at most ``timeout`` seconds (None: as long as it takes), then raises TimeoutError; the job goes on. Raises
        JobFailed, JobCancelled or JobSkipped when it ended so.
        """
        _check_written(self._kept_by, f"job {self.type!r}")
        row = await self._client.waits.wait(self.id, timeout)
        if row.outcome is Outcome.SUCCEEDED:
            return cast(R_co, self._client.decode_result(self.type, row.result, self.id))
        raise await self._error(row)

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """The status once the job has ended, however it did. Raises TimeoutError after ``timeout`` seconds."""
        _check_written(self._kept_by, f"job {self.type!r}")
        await self._client.waits.wait(self.id, timeout)
        return await self.status()

    async def status(self) -> JobStatus:
        """How the job stands now. Raises NotFound if it is no longer stored."""
        found = await reads.job(self._client.database, self.id)
        if found is None:
            raise NotFound(f"no job {self.id} is stored")
        return JobStatus(**shown.status(self._client.sealing, found))

    async def attempts(self) -> list[Attempt]:
        """The attempts that did not succeed, the first one first."""
        rows = await reads.attempts(self._client.database, self.id)
        return [Attempt(**shown.failure(self._client.sealing, row, self.id)) for row in rows]

    async def audit(self) -> list[AuditEntry]:
        """What people did to the job, the first first."""
        return await _audit(self._client, self.id)

    async def cancel(self, *, actor: str | None = None, reason: str | None = None) -> Cancelled:
        """Cancel the job; for a flow as a node, the whole flow.

        ``"cancelled"``: it had not begun, and will not. ``"requested"``: it runs, and its handler is being interrupted,
        wherever it runs; it ends as cancelled unless it succeeds first. ``"too late"``: it has ended.

            await run.cancel(actor="ann", reason="ordered twice")
        """
        _check_written(self._kept_by, f"job {self.type!r}")
        return await control.cancel(self._client, self.id, By(actor, reason))

    async def retry(
        self,
        *,
        args: Mapping[str, Any] | None = None,
        drop: Sequence[str] = (),
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Run the job again, which has failed or was cancelled, with all its attempts.

        In a flow, what was skipped because of it is decided again too. ``args`` replace arguments, those named by
        ``drop`` are taken out. Raises NotPossible if it has not failed, or if what its flow did is undone or being
        undone, and InvalidArguments where its handler is known here and does not take the arguments.

            await run["invoice"].retry(args={"address": "new"}, actor="ann", reason="wrong address")
        """
        edited = self._client.edited(self.type, args, drop)
        await control.retry_job(self._client, self.id, edited, By(actor, reason))

    async def resolve(self, result: Any = None, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the job count as succeeded, with ``result``, whatever state it is in. Raises NotPossible if it has.

        The result is what its handler would return, where that is known here: InvalidArguments if it is not.

        A running handler is interrupted; what the job's failure skipped is decided again.
        """
        await control.decide(self._client, self.id, self.type, Outcome.SUCCEEDED, result, By(actor, reason))

    async def explain(self) -> Explanation:
        """Why the job is not running: ``print(await run.explain())``."""
        return await explain(self._client, self.id)

    async def skip(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the job be skipped, whatever state it is in. Raises NotPossible if it has succeeded or was skipped, or if
        what its flow did is undone or being undone.

            await run["invoice"].skip(actor="ann", reason="not needed")
        """
        await control.decide(self._client, self.id, self.type, Outcome.SKIPPED, None, By(actor, reason))

    async def _error(self, row: OutcomeRow) -> Exception:
        error = error_of(self._client.sealing, row.error, row.id)
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
    """A flow as stored. ``run["invoice"]`` is the job of the node of that name.

    ``duplicate`` is true where the dispatch wrote nothing, because its key was held by this flow.
    """

    __slots__ = ("_client", "_kept_by", "_nodes", "duplicate", "id", "name")

    def __init__(
        self,
        client: Client,
        id: UUID,
        name: str,
        nodes: MutableMapping[str, tuple[UUID, str]],
        *,
        duplicate: bool = False,
        kept_by: Claimed | None = None,
    ) -> None:
        self._client = client
        self._kept_by = kept_by
        self._nodes = nodes
        self.id: UUID = id
        self.name: str = name
        self.duplicate: bool = duplicate

    def __getitem__(self, name: str) -> JobRun[Any]:
        """The job of the node ``name``; for a flow as a node, the job that ends it. Raises NotFound.

        ``run["quote[0]"]`` is an item of a map, before it is there too. Nodes that were spawned or added elsewhere are
        known here after the next ``await run.status()`` (or ``wait()``).
        """
        node = self._nodes.get(name) or self._item(name)
        if node is None:
            raise no_node(self.name, name, self._nodes)
        return JobRun(self._client, *node)

    def _item(self, name: object) -> tuple[UUID, str] | None:
        """An item of a map, which has the map's name and its number in brackets: its id follows from the map's."""
        if not isinstance(name, str) or not isinstance(self._nodes, Nodes):
            return None
        of, _, number = name.removesuffix("]").rpartition("[")
        if of not in self._nodes.item_types or f"{of}[{number}]" != name or not _NUMBER.fullmatch(number):
            return None
        ids = mint.item_ids(self._nodes[of][0], int(number) + 1)
        return ids[int(number)], self._nodes.item_types[of]

    async def result(self, timeout: float | None = None) -> Any:
        """The result of the flow's output: its single last node's, else a dict of all last nodes' by name.

        A last node that did not run has ``None`` in the dict. Waits at most ``timeout`` seconds, then raises
        TimeoutError; the flow goes on. Raises FlowFailed (naming the failed nodes) or FlowCancelled.
        """
        _check_written(self._kept_by, f"flow {self.name!r}")
        row = await self._client.waits.wait(self.id, timeout)
        if row.outcome is Outcome.SUCCEEDED:
            return await self._result(row)
        failures = await reads.flow_failures(self._client.database, self.id)
        failed = [name for _, name, outcome, _ in failures if outcome is Outcome.FAILED]
        if row.outcome is Outcome.FAILED:
            raise FlowFailed(self.name, self.id, failed, _detail(self._client, failures))
        raise FlowCancelled(f"flow {self.name!r} ({self.id}) was {row.outcome.name.lower()}")

    async def wait(self, timeout: float | None = None) -> FlowStatus:
        """The status once the flow has ended, however it did. Raises TimeoutError after ``timeout`` seconds."""
        _check_written(self._kept_by, f"flow {self.name!r}")
        await self._client.waits.wait(self.id, timeout)
        return await self.status()

    async def status(self) -> FlowStatus:
        """How the flow and each of its jobs stand now. Raises NotFound if it is no longer stored."""
        found = await reads.flow(self._client.database, self.id)
        if found is None:
            raise NotFound(f"no flow {self.id} is stored")
        found_jobs = await reads.flow_jobs(self._client.database, self.id)
        jobs = [shown.status(self._client.sealing, job) for job in found_jobs]
        self._nodes.update((job["name"], (job["id"], job["type"])) for job in jobs)
        return FlowStatus(
            id=found["id"],
            name=found["name"],
            state=found["state"],
            created_at=found["created_at"],
            finished_at=found["finished_at"],
            detail=found["detail"],
            tags=tuple(found["tags"]),
            dispatched_by=found["dispatched_by"],
            nodes={job["name"]: JobStatus(**job) for job in jobs},
        )

    async def cancel(
        self, *, compensate: bool = True, actor: str | None = None, reason: str | None = None
    ) -> Cancelled:
        """Cancel the flow: what waits will not run, what runs is interrupted, wherever it runs.

        Nodes with ``cleanup=True`` and the flow's callbacks run all the same, and what succeeded is compensated, unless
        ``compensate=False``. ``"cancelled"``: nothing was running. ``"requested"``: handlers are being interrupted.
        ``"too late"``: all its nodes have ended, so that it has, or is about to. A flow whose handlers all succeed
        before they hear of it has succeeded.

            await run.cancel(actor="ann", reason="ordered twice")
        """
        _check_written(self._kept_by, f"flow {self.name!r}")
        return await control.cancel(self._client, self.id, By(actor, reason), compensate=compensate)

    async def retry(
        self,
        *,
        args: Mapping[str, Mapping[str, Any]] | None = None,
        drop: Mapping[str, Sequence[str]] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Run the failed nodes again, and decide again what was skipped because of them; finished work is kept.

        Cancelled nodes count as failed; optional ones that failed, and losers of races, do not. A cancellation is over
        with it: a handler that is being interrupted runs again when it has stopped. ``args`` replace arguments, by
        node; those that ``drop`` names, by node, are taken out. Returns how many nodes run again; 0 if none had failed.
        Raises NotPossible if the flow was compensated, or is being, and InvalidArguments where a handler is known here
        and does not take the arguments.

            await run.retry(args={"invoice": {"address": "new"}}, actor="ann")
        """
        args, drop = args or {}, drop or {}
        edits = {
            self[name].id: self._client.edited(self[name].type, args.get(name), drop.get(name, ()))
            for name in {**args, **drop}
        }
        given = {id: edit for id, edit in edits.items() if edit is not None}
        return await control.retry(self._client, self.id, given, By(actor, reason))

    async def signal(
        self, name: str, value: Any = None, *, actor: str | None = None, reason: str | None = None
    ) -> bool:
        """Send a signal: the gates that wait for it open, now or when they are reached, with ``value`` as their result.

        The first signal of a name counts; for a later one it returns False. Raises NotFound if no gate of the flow
        waits for that name, InvalidArguments if the value is not one of the gate's answers.

            await run.signal("approved", {"by": "ann"})
        """
        return await control.signal(self._client, self.id, name, value, By(actor, reason))

    async def resolve(
        self, name: str, result: Any = None, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Let the node ``name`` count as succeeded, with ``result``. See :meth:`JobRun.resolve`."""
        await self[name].resolve(result, actor=actor, reason=reason)

    async def skip(self, name: str, *, actor: str | None = None, reason: str | None = None) -> None:
        """Let the node ``name`` be skipped. See :meth:`JobRun.skip`."""
        await self[name].skip(actor=actor, reason=reason)

    def events(self) -> AsyncIterator[Event]:
        """What happens in the flow, told as it happens, by whatever worker: first what has happened already.

        Read from the database, so nothing is lost between the two. It ends with the flow: ``flow_finished`` is the last
        that is told of what led to the end, compensations included. Callbacks come after it: what has happened of them
        by then is told too, the rest by a later ``events()``. Raises NotFound if the flow is not stored.

            async for event in run.events():
                print(event.at, event.kind, event.name)
        """
        return events(self._client, self.id)

    async def audit(self) -> list[AuditEntry]:
        """What people did to the flow and its jobs, the first first.

        for entry in await run.audit():
            print(entry.at, entry.actor, entry.verb, entry.node, entry.reason)
        """
        return await _audit(self._client, self.id)

    async def explain(self, name: str | None = None) -> Explanation:
        """Why a node is not running, or the flow has not ended: ``print(await run.explain("ware"))``.

        Names what it waits for: parents, a signal, a moment, a worker that serves its queue and knows its type.
        """
        return await explain(self._client, self.id if name is None else self[name].id)

    async def add(
        self,
        spec: JobSpec[R],
        *,
        after: str | Sequence[str] | None = None,
        name: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> JobRun[R]:
        """Add a node to the flow while it is open; it runs after the nodes named by ``after`` succeeded, else at once.

        Nodes may have ended already. Raises InvalidFlow if all nodes of the flow have ended, if it has no such node, or
        has one of that ``name`` (default: the type's name, made unique).

            await run.add(send_gift.job(order_id=42), after="ship")
        """
        growth, id = self._client.plan_addition(self.id, spec, after, name)
        names = await control.add(self._client, growth, By(actor, reason))
        self._nodes[names[id]] = (id, spec.type)
        return JobRun(self._client, id, spec.type)

    async def _result(self, row: OutcomeRow) -> Any:
        if row.result is not None:
            output = await reads.flow_output(self._client.database, self.id)
            return self._client.decode_result(output or END_TYPE, row.result, self.id)
        sinks = await reads.flow_sinks(self._client.database, self.id)
        return {
            name: None if result is None else self._client.decode_result(type, result, id)
            for name, (id, type, result) in sinks.items()
        }

    def __repr__(self) -> str:
        """Name and id."""
        return f"<FlowRun {self.name!r} {self.id}>"


def _check_written(kept_by: Claimed | None, what: str) -> None:
    """Waiting inside the attempt whose success writes it would wait for ever."""
    if kept_by is not None and not kept_by.over:
        raise FlowrunError(
            f"{what} is dispatched when this handler has succeeded, so the handler cannot wait for it; "
            "dispatch(now=True) writes it at once"
        )


async def _audit(client: Client, id: UUID) -> list[AuditEntry]:
    rows = await reads.audited(client.database, id)
    return [AuditEntry(**shown.audited(client.sealing, row)) for row in rows]


def _detail(client: Client, failures: list[tuple[UUID, str, Outcome, str | None]]) -> str:
    for id, _, outcome, error in failures:
        if outcome is Outcome.FAILED and error:
            stored = error_of(client.sealing, error, id)
            return f"{stored.get('type', 'Exception')}: {stored.get('message', '')}"
    return ""
