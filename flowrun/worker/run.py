"""One attempt: from a claimed job to how it ended. Knows no database."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from flowrun import codec
from flowrun.context import Job
from flowrun.core.attempt import Attempted, Claimed, Ending, Failure, Success
from flowrun.core.outcome import Again, Policy, decide, policy
from flowrun.core.references import Unresolved, put_back
from flowrun.core.states import Outcome
from flowrun.errors import HandlerSignal, InvalidArguments, Snooze
from flowrun.registry import Definition, Registry

logger = logging.getLogger("flowrun.job")


class AttemptTimeout(TimeoutError):
    """An attempt took longer than its job's ``timeout``."""


class Runner:
    """Runs attempts with the handlers of one registry."""

    def __init__(self, registry: Registry, *, concurrency: int, max_payload: int, error_text: int) -> None:
        self._registry = registry
        self._max_payload = max_payload
        self._error_text = error_text
        self._threads = anyio.CapacityLimiter(concurrency)
        self._known: dict[str, tuple[Definition, Policy, bool]] = {}
        """By type; the last says that nothing but the function is to be called."""

    async def run(self, job: Claimed) -> Attempted:
        """Run one attempt. Never raises, but for the cancellation of the task it runs in."""
        definition, rules, simple = self._known.get(job.type) or self._learn(job.type)
        try:
            if simple and job.options is None and job.bindings is None and job.attempt <= rules.attempts:
                value = await definition.function(**definition.decode(job.args))
            else:
                if job.options is not None:
                    rules = policy(definition.options, codec.load(job.options))
                if job.attempt > rules.attempts:
                    return self._gave_up(job, rules)
                value = await self._call(definition, self._arguments(job, definition, rules), rules)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(job, rules, error)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler fails the job, not the worker
            return self._failed(job, rules, error)
        if value is None:
            return Success(job.id, job.lease, job.attempt, "null")
        try:
            return Success(job.id, job.lease, job.attempt, self._dump(value, definition))
        except codec.NotStorable as error:
            at = f" at {error.path!r}" if error.path else ""
            reason = f"the result cannot be stored{at}: {error.reason}"
            return self._over(job, Failure("flowrun.ResultNotStorable", reason, None))

    def _dump(self, value: Any, definition: Definition) -> str:
        try:
            return codec.dump(value, limit=self._max_payload)
        except codec.NotStorable as error:
            if not error.foreign:
                raise
            try:
                plain = definition.to_plain_result(value)
            except (ValueError, TypeError, RecursionError):
                raise error from None
            return codec.dump(plain, limit=self._max_payload)

    def _learn(self, type: str) -> tuple[Definition, Policy, bool]:
        definition = self._registry.get(type)
        rules = policy(definition.options, {})
        simple = not definition.threaded and definition.job_parameter is None and rules.timeout is None
        known = self._known[type] = (definition, rules, simple)
        return known

    async def _call(self, definition: Definition, arguments: dict[str, Any], rules: Policy) -> Any:
        if definition.threaded:
            return await self._limited(self._in_thread(partial(definition.function, **arguments)), rules.timeout)
        return await self._limited(definition.function(**arguments), rules.timeout)

    def _arguments(self, job: Claimed, definition: Definition, rules: Policy) -> dict[str, Any]:
        if job.bindings is None:
            arguments = definition.decode(job.args)
        else:
            plain = codec.load(job.args)
            results = [None if value is None else codec.load(value) for value in job.values or ()]
            try:
                put_back(plain, codec.load(job.bindings), results)
            except Unresolved as error:
                raise InvalidArguments(f"job of type {job.type!r}, {error}") from None
            arguments = definition.decode_value(plain)
        if definition.job_parameter is not None:
            arguments[definition.job_parameter] = _context(job, rules)
        return arguments

    async def _limited(self, call: Any, timeout: float | None) -> Any:
        if timeout is None:
            return await call
        value: Any = None
        with anyio.move_on_after(timeout) as scope:
            value = await call
        if scope.cancel_called:
            # Also when the handler swallowed the cancellation and returned: its time was over.
            raise AttemptTimeout(f"the attempt took longer than {timeout} s")
        return value

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        value, error = await anyio.to_thread.run_sync(
            partial(_caught, call), limiter=self._threads, abandon_on_cancel=True
        )
        if error is not None:
            raise error
        return value

    def _failed(self, job: Claimed, rules: Policy, error: BaseException) -> Ending:
        failure = describe(error, self._error_text)
        try:
            following = decide(error, job.attempt, rules, random.random())  # noqa: S311 - jitter
        except Exception as broken:  # noqa: BLE001 - a user's own backoff function
            failure = describe(broken, self._error_text)
            return self._over(job, failure)
        if isinstance(following, Again):
            kept = None if isinstance(error, Snooze) else failure
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
        """The job's last attempt was lost with its worker; the attempt under way is not run."""
        message = f"all {rules.attempts} attempts are used up; the last was lost with its worker"
        error = codec.dump({"type": "flowrun.WorkerLost", "message": message})
        return Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=error)


def _caught(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a call in a thread came to. A GeneratorExit that travelled by a future would end all that wait for it."""
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - raised again where it belongs
        return None, error


def describe(error: BaseException, limit: int) -> Failure:
    """An exception as it is kept: always storable, whatever it holds, and never its frames' local values."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a user's __str__
        message = f"<unprintable {kind.__qualname__}>"
    trace: str | None = None
    if not isinstance(error, HandlerSignal | InvalidArguments | AttemptTimeout):
        try:
            frames = traceback.TracebackException.from_exception(error, limit=-50, max_group_depth=5)
            trace = codec.clean_text("".join(frames.format()), limit)
        except Exception:  # noqa: BLE001 - a user's __str__ or __cause__ again
            trace = None
    return Failure(codec.clean_text(name, 200), codec.clean_text(message, limit), trace)


def _context(job: Claimed, rules: Policy) -> Job:
    stored = codec.load(job.options) if job.options is not None else {}
    return Job(
        id=job.id,
        type=job.type,
        queue=job.queue,
        attempt=job.attempt,
        attempts=rules.attempts,
        flow_id=job.flow_id,
        name=job.name,
        priority=job.priority,
        tags=tuple(stored.get("tags", ())),
    )
