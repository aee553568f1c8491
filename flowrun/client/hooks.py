"""Hooks: functions that are told of jobs and flows that start and end. Nothing depends on them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from uuid import UUID

import anyio.to_thread

from flowrun import codec
from flowrun.client.runs import FlowRun
from flowrun.context import OUTCOMES, Job, JobError
from flowrun.core.attempt import Attempted, Claimed, Ending, Failure
from flowrun.core.lanes import queue_of
from flowrun.core.states import Kind
from flowrun.errors import ConfigurationError
from flowrun.logs import Log
from flowrun.redaction import guarded, traceback_of
from flowrun.registry import is_async
from flowrun.sealing import Sealing, shown
from flowrun.sealing.attempts import error_of
from flowrun.sealing.rows import callback_of, shown_args
from flowrun.store import reads
from flowrun.store.pool import reason

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

logger = Log("flowrun.hooks")

HookKind = Literal["attempt_failed", "job_failed", "job_succeeded", "job_started", "flow_finished"]
KINDS: Final[tuple[str, ...]] = get_args(HookKind)
_OF_ATTEMPTS: Final = frozenset({"attempt_failed", "job_started"})
_OF_JOBS: Final[dict[str, HookKind]] = {
    "succeeded": "job_succeeded",
    "failed": "job_failed",
    "cancelled": "job_failed",
}
_PARTS: Final = ("event", "job", "error", "flow")
MOST: Final = 10_000
"""Events that wait for hooks; beyond it, more are dropped, and that is logged."""


@dataclass(frozen=True, slots=True)
class HookEvent:
    """What a hook is told."""

    kind: HookKind
    id: UUID
    """Of the job, or the flow."""
    name: str | None
    """Of the node, or the flow."""
    outcome: Literal["succeeded", "failed", "cancelled", "skipped"] | None
    """None: it has not ended."""
    at: datetime
    job: Job | None
    """What is known of the job; it can be looked at only. None: the event is about a flow."""
    error: JobError | None = None
    """Of an attempt or a job that failed."""
    reason: str | None = None
    """Why it was cancelled, failed or skipped."""
    flow: FlowRun | None = None
    """The flow that finished."""


class Hooks:
    """The hooks of an app. Each is called in a task of its own; one that raises is logged."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hooks: dict[str, list[Callable[[HookEvent], Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, kind: str, function: Callable[..., Any]) -> None:
        """Call ``function`` at every event of ``kind``. Raises ConfigurationError."""
        if kind not in KINDS:
            raise ConfigurationError(f"there is no hook {kind!r}; hooks are {', '.join(KINDS)}")
        self._hooks.setdefault(kind, []).append(_with_parts(function))

    @property
    def of_attempts(self) -> bool:
        """Whether anybody wants to know of attempts."""
        return not self._hooks.keys().isdisjoint(_OF_ATTEMPTS)

    @property
    def of_ends(self) -> bool:
        """Whether anybody wants to know of ends of jobs or flows."""
        return bool(self._hooks.keys() - _OF_ATTEMPTS)

    def started(self, job: Claimed) -> None:
        """An attempt begins."""
        if "job_started" in self._hooks and job.kind == Kind.HANDLER:
            self._fire(HookEvent("job_started", job.id, job.name, None, datetime.now(UTC), _shown(job)))

    def attempted(self, job: Claimed, ended: Attempted) -> None:
        """An attempt has ended, and is about to be settled."""
        if "attempt_failed" in self._hooks and isinstance(ended, Ending) and ended.failure is not None:
            at = datetime.now(UTC)
            error = _error(self._client.sealing, job, ended.failure, at)
            self._fire(HookEvent("attempt_failed", job.id, job.name, None, at, _shown(job), error, error.message))

    def settled(self, ids: Sequence[UUID]) -> None:
        """Jobs have their outcomes, committed."""
        if self.of_ends and ids and len(self._tasks) < MOST:
            self._start(self._tell_ends(list(ids)))

    async def drain(self, seconds: float) -> None:
        """Let hooks that run come to their end, for a while."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _tell_ends(self, ids: list[UUID]) -> None:
        try:
            rows = await reads.ended_jobs(self._client.database, ids)
        except Exception as error:  # noqa: BLE001 - whatever it is: nobody awaits this task
            logger.warning("hooks are not told of %d job(s): %s", len(ids), reason(error))
            return
        for event in self._events(rows):
            self._fire(event)

    def _events(self, rows: Iterable[Any]) -> Iterable[HookEvent]:
        for row in rows:
            outcome = OUTCOMES[row["outcome"]]
            stored = error_of(self._client.sealing, row["error"], row["id"])
            reason = stored.get("message")
            if row["kind"] == Kind.END:
                name = row["flow_name"]
                flow = FlowRun(self._client, row["id"], name, {})
                at = row["finished_at"]
                yield HookEvent("flow_finished", row["id"], name, outcome, at, None, reason=reason, flow=flow)
                continue
            kind = _OF_JOBS.get(outcome)
            if kind is None or kind not in self._hooks:
                continue
            about = {**row, "message": reason, "error_type": stored.get("type")}
            error = _stored_error(self._client.sealing, about) if outcome == "failed" else None
            job = Job(
                id=row["id"], type=row["type"], queue=row["queue"], attempt=row["attempt"], flow_id=row["flow_id"],
                name=row["name"], priority=row["priority"], tags=_tags(codec.look(row["tags"])),
            )  # fmt: skip
            yield HookEvent(kind, row["id"], row["name"], outcome, row["finished_at"], job, error, reason)

    def _fire(self, event: HookEvent) -> None:
        for hook in self._hooks.get(event.kind, ()):
            if len(self._tasks) >= MOST:
                logger.error("hooks are too slow: %s of %s is told to nobody", event.kind, event.id)
                return
            self._start(self._call(hook, event))

    async def _call(self, hook: Callable[[HookEvent], Any], event: HookEvent) -> None:
        try:
            await hook(event)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code: sys.exit() in a hook ends no worker
            redact = guarded(self._client.settings.redact)
            try:
                told = redact(traceback_of(error))
            except BaseException:  # noqa: BLE001 - its own methods
                told = type(error).__name__
            logger.error("a hook of %s raised; nothing else is changed by it\n%s", event.kind, told)  # noqa: TRY400 - redacted

    def _start(self, coroutine: Any) -> None:
        # A hook is told of an attempt and no part of it: it outlives it, and what it dispatches is its own.
        context = copy_context()
        context.run(self._client.attempt.set, None)
        task = asyncio.get_running_loop().create_task(coroutine, name="flowrun-hook", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with_parts(function: Callable[..., Any]) -> Callable[[HookEvent], Any]:
    """``function`` as called with an event, by the parameters it has: ``event``, ``job``, ``error``, ``flow``."""
    names = list(inspect.signature(function).parameters)
    if len(names) == 1 and names[0] not in _PARTS:
        names = ["event"]
        positional = True
    else:
        positional = False
    if unknown := [name for name in names if name not in _PARTS]:
        raise ConfigurationError(
            f"hook {function.__name__!r} takes {', '.join(unknown)}; a hook's parameters are among {', '.join(_PARTS)}"
        )
    in_loop = is_async(function)

    async def call(event: HookEvent) -> None:
        given = {name: event if name == "event" else getattr(event, name) for name in names}
        args, kwargs = ((event,), {}) if positional else ((), given)
        if in_loop:
            await function(*args, **kwargs)
        else:
            error = await anyio.to_thread.run_sync(_raised, lambda: function(*args, **kwargs))
            if error is not None:
                raise error

    return call


def _raised(call: Callable[[], Any]) -> BaseException | None:
    """What ``call`` raised in its thread: on its way out of it, the loop would look into it, and run its code."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - raised again where it belongs
        return error
    return None


def _shown(job: Claimed) -> Job:
    stored = codec.look_into(job.options)
    return Job(
        id=job.id, type=job.type, queue=queue_of(job.queue), attempt=job.attempt, flow_id=job.flow_id, name=job.name,
        priority=job.priority, tags=_tags(stored.get("tags")),
    )  # fmt: skip


def _error(sealing: Sealing, job: Claimed, failure: Failure, at: datetime) -> JobError:
    return JobError(
        failure.error_type,
        failure.message,
        failure.traceback,
        codec.load(failure.detail) if failure.detail else {},
        job.id,
        job.type,
        queue_of(job.queue),
        job.name,
        job.flow_id,
        shown_args(sealing, job.kind, job.args, job.id, callback_of(job.options)),
        job.attempt,
        at,
        job.priority,
    )


def _tags(stored: Any) -> tuple[str, ...]:
    return tuple(map(str, stored)) if isinstance(stored, list) else ()


def _stored_error(sealing: Sealing, row: Any) -> JobError:
    return JobError(
        row["error_type"] or "",
        row["message"] or "",
        sealing.shown_text(row["traceback"], row["id"], "traceback"),
        shown.detail(sealing, row["detail"], row["id"]),
        row["id"],
        row["type"],
        row["queue"],
        row["name"],
        row["flow_id"],
        shown_args(sealing, row["kind"], row["args"], row["id"], row["failed"]),
        row["attempt"],
        row["finished_at"],
        row["priority"],
        _tags(codec.look(row["tags"])),
    )
