"""One attempt: from a claimed job to how it ended. Knows no database."""

from __future__ import annotations

import asyncio
import inspect
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread

from flowrun import codec
from flowrun.context import Job, Parents, Services
from flowrun.core.attempt import Attempted, Claimed, Ending, Failure, Success
from flowrun.core.lanes import queue_of
from flowrun.core.outcome import OVER, Again, NotBegun, Policy, RaisedElsewhere, decide, policy
from flowrun.core.references import Unresolved, put_back
from flowrun.core.states import Outcome
from flowrun.errors import InvalidArguments, NotReadable, ProcessDied, UnknownHandler
from flowrun.logs import Log
from flowrun.redaction import Redact
from flowrun.registry import Definition, Registry
from flowrun.sealing import PLAIN, Sealing, foreign
from flowrun.sealing.attempts import opened
from flowrun.shapes import Misfit, not_stored
from flowrun.worker.failures import AttemptEnded, AttemptTimeout, cause_of, describe
from flowrun.worker.processes import Processes
from flowrun.worker.tasks import cancelled_by
from flowrun.worker.threads import Threads

logger = Log("flowrun.job")

LARGE = 1000
"""Jobs that a handler has dispatched and spawned, from which on they are laid out in a thread."""
SWEPT = 1.0
"""Seconds after which a job runs again that another one has cancelled together with all tasks of the process."""


class Runner:
    """Runs attempts with the handlers of one registry."""

    def __init__(
        self,
        registry: Registry,
        *,
        threads: Threads,
        processes: Processes,
        services: Callable[[Claimed], Services],
        attempt: ContextVar[Claimed | None],
        begin: Callable[[Claimed], Awaitable[bool]],
        middleware: Sequence[Callable[..., Any]] = (),
        max_payload: int,
        error_text: int,
        redact: Redact = str,
    ) -> None:
        self._registry = registry
        self._threads = threads
        self._processes = processes
        self._services = services
        self._attempt = attempt
        self._begin = begin
        self._middleware = middleware
        self._max_payload = max_payload
        self._describe = partial(describe, limit=error_text, redact=redact)
        self._known: dict[str, tuple[Definition, Policy, bool]] = {}
        """By type; the last says that nothing but the function is to be called."""

    async def run(self, job: Claimed) -> Attempted:
        """Run one attempt. Never raises, but for the cancellation by a worker that ends, and GeneratorExit."""
        try:
            definition, rules, simple = self._known.get(job.type) or self._learn(job.type)
        except UnknownHandler as error:  # it was claimed as another type's: its row and its place do not agree
            job.over = True
            return self._over(job, self._describe(error))
        if job.interrupted:
            return _stopped(job)
        self._attempt.set(job)
        try:
            if simple and job.options is None and job.bindings is None and job.attempt <= rules.attempts:
                value = await definition.function(**definition.decode(job.args))
            else:
                if job.options is not None:
                    rules = policy(definition.options, codec.load(job.options))
                if job.attempt > rules.attempts:
                    return self._gave_up(job, rules)
                value = await self._call(job, definition, rules)
            job.over = True
            if job.settled:
                return _over(job)
            if job.interrupted:
                return _stopped(job)
            more = None
            if job.outbox is not None:
                # What takes a second to lay out is laid out off the loop, where other jobs go on.
                large = job.outbox.size > LARGE
                more = await anyio.to_thread.run_sync(job.outbox.sealed) if large else job.outbox.sealed()
        except asyncio.CancelledError as error:
            job.over = True
            if job.interrupted:
                return _stopped(job)
            if job.settled:
                return _over(job)
            if job.given_back:
                raise
            return self._cancelled(job, rules, error)
        except GeneratorExit:
            raise  # an answer might not be heard: see broke_off
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler fails the job, not the worker
            job.over = True
            if job.settled:
                kind = type(error).__qualname__
                logger.warning("job %s (%s) was completed, and then its handler raised %s", job.id, job.type, kind)
                return _over(job)
            return _stopped(job) if job.interrupted else self._failed(job, rules, error)
        try:
            result = "null" if value is None else definition.returned.dump(value, limit=self._max_payload)
            if more is None:
                return Success(job.id, job.lease, job.attempt, result)
            return Ending(job.id, job.lease, job.attempt, Outcome.SUCCEEDED, result, more=more, flow_id=more.grows)
        except (codec.NotStorable, Misfit) as error:
            return self._over(job, Failure("flowrun.ResultNotStorable", not_stored(error), None))

    def _cancelled(self, job: Claimed, rules: Policy, error: asyncio.CancelledError) -> Ending:
        """The end of an attempt that flowrun did not cancel: its own code did, or somebody who had its task."""
        if job.scope is not None and job.scope.cancel_called:
            # A cancellation that its handler swallowed, and did not take back, hides the one by which its time ended.
            return self._failed(job, rules, AttemptTimeout(f"the attempt took longer than {rules.timeout} s"))
        by = cancelled_by(asyncio.current_task())
        if by is not None and by is not job and by.swept:
            return _swept(job, by)
        if not error.args:
            who = "its own code" if by is job else f"job {by.id} ({by.type})" if by is not None else "somebody"
            message = f"{who} cancelled the task of the attempt; flowrun did not"
            if by is None and job.swept:
                message = "it asked its own worker to end, and did not end before it"
            error = asyncio.CancelledError(message).with_traceback(error.__traceback__)
        return self._failed(job, rules, error)

    def broke_off(self, job: Claimed, error: BaseException, by: Claimed | None = None) -> Ending:
        """The end of an attempt that ended every coroutine on its way, or that job ``by`` cancelled before it began."""
        job.over = True
        if job.settled:
            return _over(job)
        if by is not None and by is not job and not job.interrupted:
            return _swept(job, by)
        return _stopped(job) if job.interrupted else self._failed(job, self._rules(job), error)

    def left_behind(self, job: Claimed) -> Ending:
        """The end of an attempt whose handler does not end although it was asked to."""
        job.over = True
        if job.settled:
            return _over(job)
        if job.interrupted:
            return _stopped(job)
        rules = self._rules(job)
        message = f"the attempt took longer than {rules.timeout} s, and its handler ignores its cancellation"
        return self._failed(job, rules, AttemptTimeout(message))

    def _rules(self, job: Claimed) -> Policy:
        try:
            return self._stored_rules(job)
        except Exception:  # noqa: BLE001 - whoever can write into the tables may have written anything
            return policy({"attempts": 1}, {})

    def _stored_rules(self, job: Claimed) -> Policy:
        definition, rules, _ = self._known.get(job.type) or self._learn(job.type)
        return rules if job.options is None else policy(definition.options, codec.load(job.options))

    def _learn(self, type: str) -> tuple[Definition, Policy, bool]:
        definition = self._registry.get(type)
        rules = policy(definition.options, {})
        takes_more = definition.job_parameter is not None or definition.error_parameter is not None
        bounded = rules.timeout is not None or rules.once
        simple = not (definition.threaded or takes_more or self._middleware or bounded)
        known = self._known[type] = (definition, rules, simple)
        return known

    async def _call(self, job: Claimed, definition: Definition, rules: Policy) -> Any:
        """Call the handler where its kind is called."""
        if definition.address is not None:
            return await self._call_in_process(job, definition, rules)
        arguments = self._arguments(job, definition, rules)
        call: Callable[[], Any] = partial(definition.function, **arguments)
        if definition.threaded:
            call = partial(self._call_in_thread, partial(_unless_held_up, job, call), job)
        return await self._within(job, rules, call, arguments.get(definition.job_parameter or ""))

    async def _call_in_thread(self, call: Callable[[], Any], job: Claimed) -> Any:
        """A decorator may hide that the function is async: what it returns is awaited here, on the loop."""
        value = await self._threads.run(call, job)
        return await value if inspect.isawaitable(value) else value

    async def _call_in_process(self, job: Claimed, definition: Definition, rules: Policy) -> Any:
        """The attempt's time begins when a process is there that has imported the handler."""
        args = job.args if job.bindings is None else codec.dump(_filled_in(job))
        context = _context(job, rules, self._services(job))
        async with self._processes.one(definition) as process:
            _unless_held_up(job)
            request = self._processes.request(definition, args, context, job)

            async def call() -> Any:
                return definition.result(await process.run(request, context.progress))

            return await self._within(job, rules, call, context)

    async def _within(self, job: Claimed, rules: Policy, call: Callable[[], Any], context: Job | None) -> Any:
        """Call in a cancel scope, by which its time ends, or it is asked to stop; with all middleware around."""
        value: Any = None
        timeout = rules.timeout
        if rules.once and not await self._begin(job):
            raise NotBegun  # somebody else has it by now, or nobody could be asked
        if self._middleware:
            call = _around(self._middleware, context or _context(job, rules, self._services(job)), call)
        with anyio.CancelScope(deadline=anyio.current_time() + timeout if timeout else math.inf) as job.scope:
            value = await call()
        if job.scope.cancel_called and not job.interrupted:
            # Also when the handler swallowed the cancellation and returned: its time was over.
            raise AttemptTimeout(f"the attempt took longer than {timeout} s")
        return value

    def _arguments(self, job: Claimed, definition: Definition, rules: Policy) -> dict[str, Any]:
        bound = job.bindings is not None
        arguments = definition.decode_value(_filled_in(job)) if bound else definition.decode(job.args)
        if definition.job_parameter is not None:
            context = _failed_job if definition.of_failure else _context
            arguments[definition.job_parameter] = context(job, rules, self._services(job))
        if definition.error_parameter is not None:
            arguments[definition.error_parameter] = cause_of(job)
        return arguments

    def _failed(self, job: Claimed, rules: Policy, error: BaseException) -> Ending:
        if issubclass(type(error), InvalidArguments | RaisedElsewhere):
            error = _unreadable(job) or error
        failure = self._describe(error)
        draw = random.random()  # noqa: S311 - jitter
        try:
            died = rules.once and job.begun and issubclass(type(error), ProcessDied)
            following = OVER if died else decide(error, job.attempt, rules, draw)
        except BaseException:  # noqa: BLE001 - the exception's own code; sys.exit() in it, too
            try:
                following = decide(AttemptEnded(), job.attempt, rules, draw)
            except BaseException as broken:  # noqa: BLE001 - a user's own backoff function
                return self._over(job, self._describe(broken))
        if isinstance(following, Again):
            kept = None if following.attempts_used < job.attempt else failure
            if kept is not None:
                logger.warning(
                    "job %s (%s) attempt %d failed, next in %.1f s: %s",
                    job.id, job.type, job.attempt, following.delay, failure.error_type,
                )  # fmt: skip
            return Ending(
                job.id, job.lease, job.attempt, None, failure=kept, delay=following.delay,
                attempts_used=following.attempts_used,
            )  # fmt: skip
        return self._over(job, failure)

    def _over(self, job: Claimed, failure: Failure) -> Ending:
        logger.error("job %s (%s) failed on attempt %d: %s", job.id, job.type, job.attempt, failure.error_type)
        error = codec.dump({"type": failure.error_type, "message": failure.message})
        return Ending(job.id, job.lease, job.attempt, Outcome.FAILED, failure=failure, error=error)

    def _gave_up(self, job: Claimed, rules: Policy) -> Ending:
        """It has had its attempts: it may have fewer now than when it ran last. The one under way is not run."""
        message = f"all {rules.attempts} attempts are used up"
        error = codec.dump({"type": "flowrun.AttemptsUsedUp", "message": message})
        return Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=error)


class SealedRunner(Runner):
    """Opens what is sealed of a job before it runs it. What it came to is sealed when it is settled."""

    def __init__(self, sealing: Sealing, registry: Registry, **rest: Any) -> None:
        super().__init__(registry, **rest)
        self._sealing = sealing

    async def run(self, job: Claimed) -> Attempted:
        """Run one attempt. What cannot be opened fails the job at once."""
        try:
            opened(self._sealing, job)
        except Exception as error:  # noqa: BLE001 - whoever can write into the tables may have written anything
            job.over = True
            return self._failed(job, self._rules(job), error)
        return await super().run(job)


def _filled_in(job: Claimed) -> dict[str, Any]:
    """A job's arguments with the results they refer to. Raises InvalidArguments."""
    plain: dict[str, Any] = codec.load(job.args)
    results = [None if value is None else codec.load(value) for value in job.values or ()]
    if type(plain) is not dict:
        opened(PLAIN, job)
    for value in results:
        if type(value) is str and foreign(value):
            opened(PLAIN, job)
    try:
        put_back(plain, codec.load(job.bindings or "[]"), results)
    except Unresolved as error:
        raise InvalidArguments(f"job of type {job.type!r}, {error}") from None
    return plain


def _unless_held_up(job: Claimed, call: Callable[[], Any] | None = None) -> Any:
    """Begin now, where there is a thread or a process; a job whose queue was paused meanwhile is handed back."""
    if job.held_up:
        raise NotBegun
    return None if call is None else call()


def _unreadable(job: Claimed) -> NotReadable | None:
    """Why the arguments, as they stand now, could be nobody's: they are encrypted, or nothing that flowrun writes."""
    try:
        opened(PLAIN, job)
    except NotReadable as error:
        return error
    except Exception:  # noqa: BLE001 - whoever can write into the tables may have written anything
        return None
    return None


def interrupt(job: Claimed, task: asyncio.Task[Any]) -> None:
    """Ask the attempt that ``task`` runs to stop."""
    if not job.interrupted and not job.over:
        job.interrupted = True
        if job.scope is not None:
            job.scope.cancel()
        else:
            task.cancel()


def _swept(job: Claimed, by: Claimed) -> Ending:
    """An attempt that another job cancelled, as with all tasks of the process: its job runs again and has used none."""
    logger.warning("job %s (%s) was cancelled by job %s (%s), and runs again", job.id, job.type, by.id, by.type)
    return Ending(job.id, job.lease, job.attempt, None, delay=SWEPT, attempts_used=job.attempt - 1)


def _over(job: Claimed) -> Ending:
    """A job that its handler has settled is in no lease any more: its settle finds nothing to do but count."""
    return Ending(job.id, job.lease, job.attempt, None, attempts_used=job.attempt)


def _stopped(job: Claimed) -> Ending:
    job.over = True
    return Ending(job.id, job.lease, job.attempt, Outcome.CANCELLED, attempts_used=job.attempt - 1, interrupted=True)


def _around(middleware: Sequence[Callable[..., Any]], context: Job, call: Callable[[], Any]) -> Callable[[], Any]:
    """``call`` with all middleware around it, the first outermost."""

    async def handler(_: Job = context) -> Any:
        return await call()

    following: Callable[..., Any] = handler
    for one in reversed(middleware):

        async def step(job: Job = context, *, one: Any = one, following: Any = following) -> Any:
            return await one(job, following)

        following = step
    return following


def _failed_job(job: Claimed, rules: Policy, services: Services) -> Job:
    """The job that failed, with what the one that runs because of it can ask of its worker."""
    failed = cause_of(job)
    return Job(
        id=failed.job_id,
        type=failed.job_type,
        queue=failed.queue,
        attempt=failed.attempt,
        attempts=failed.attempt,
        flow_id=failed.flow_id,
        name=failed.name,
        priority=failed.priority,
        tags=failed.tags,
        services=services,
    )


def _context(job: Claimed, rules: Policy, services: Services) -> Job:
    stored = codec.load(job.options) if job.options is not None else {}
    dispatched_by = stored.get("dispatched_by")
    tick = stored.get("scheduled_for")
    return Job(
        id=job.id,
        type=job.type,
        queue=queue_of(job.queue),
        attempt=job.attempt,
        attempts=rules.attempts,
        flow_id=job.flow_id,
        name=job.name,
        priority=job.priority,
        tags=tuple(stored.get("tags", ())),
        dispatched_by=None if dispatched_by is None else UUID(dispatched_by),
        schedule=stored.get("schedule"),
        scheduled_for=None if tick is None else datetime.fromisoformat(tick),
        parents=None if job.parents is None else Parents(job.parents, codec.load),
        services=services,
    )
