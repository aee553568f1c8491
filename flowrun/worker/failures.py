"""Failures: from an exception to what is kept of it, and back to what a handler is told of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from flowrun import codec, redaction
from flowrun.context import JobError
from flowrun.core.attempt import Claimed, Failure
from flowrun.core.outcome import RaisedElsewhere
from flowrun.errors import HandlerSignal, InvalidArguments, NotReadable, ProcessDied


class AttemptTimeout(TimeoutError):
    """An attempt took longer than its job's ``timeout``."""


class AttemptEnded(Exception):
    """What ran an attempt was ended, and said nothing."""


def describe(error: BaseException, limit: int, redact: redaction.Redact) -> Failure:
    """An exception as it is kept: storable, whatever it holds; without secrets; never its frames' local values."""

    def kept(text: str) -> str:
        # Cut twice: what is masked must be whole, and a text of a gigabyte is not looked through.
        return codec.clean_text(redact(text[: 4 * limit]), limit, max(0, len(text) - 4 * limit))

    # All of an exception may be a user's own code, and raise anything; so may its class, and what redacts.
    kind = type(error)
    name, message, trace, detail = _name(kind), _message(error), None, None
    try:
        if kind is RaisedElsewhere:
            return _masked(error.failure, kept, redact)  # type: ignore[attr-defined]
        if not issubclass(kind, HandlerSignal | InvalidArguments | NotReadable | AttemptTimeout | ProcessDied):
            with suppress(BaseException):
                trace = kept(redaction.traceback_of(error))
        detail = _detail(error, limit, kept, redact)
        message = kept(message)
    except BaseException as broken:  # noqa: BLE001
        message = f"<not kept: {_name(type(broken))} was raised while it was looked at>"
    return Failure(codec.clean_text(name, 200), message, trace, detail)


def _name(kind: type[BaseException]) -> str:
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except BaseException:  # noqa: BLE001 - of a metaclass
        return type.__dict__["__name__"].__get__(kind)  # type: ignore[no-any-return]
    return name if module == "builtins" else f"{module}.{name}"


def _message(error: BaseException) -> str:
    try:
        # Of a text by a class of its own, the plain text: nothing of it is called later.
        return str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - a user's __str__, which may be sys.exit() too
        return f"<unprintable {_name(type(error)).rpartition('.')[2]}>"


def _masked(failure: Failure, kept: Callable[[str], str], redact: redaction.Redact) -> Failure:
    """A failure that another process has described."""
    detail = None if failure.detail is None else codec.dump(redaction.inside(codec.load(failure.detail), redact))
    trace = None if failure.traceback is None else kept(failure.traceback)
    return failure._replace(message=kept(failure.message), traceback=trace, detail=detail)


def _detail(error: BaseException, limit: int, kept: Callable[[str], str], redact: redaction.Redact) -> str | None:
    """What an exception tells besides: notes, cause, and its own ``detail``; nothing that cannot be stored."""
    told: dict[str, Any] = {}
    try:
        if notes := getattr(error, "__notes__", None):
            told["notes"] = [kept(str.__str__(str(note))) for note in notes[:20]]
        if error.__cause__ is not None:
            told["cause"] = kept(f"{type(error.__cause__).__qualname__}: {_message(error.__cause__)}")
        if (detail := getattr(error, "detail", None)) is not None and not callable(detail):
            told["detail"] = redaction.inside(codec.load(codec.dump(detail, limit=limit)), redact)
    except BaseException:  # noqa: BLE001, S110 - a user's own properties; what was found before counts
        pass
    return codec.dump(told) if told else None


def cause_of(job: Claimed) -> JobError:
    """The failure because of which a job was dispatched."""
    told = codec.load(job.options).get("failure") if job.options is not None else None
    if told is None:
        raise InvalidArguments(
            f"job of type {job.type!r}: its handler takes a JobError, so it can only run after a failure: "
            "options(on_failure=...)"
        )
    at = told["failed_at"]
    return JobError(
        type=told["type"] or "",
        message=told["message"] or "",
        traceback=told["traceback"],
        detail=told["detail"] or {},
        job_id=UUID(told["job_id"]),
        job_type=told["job_type"],
        queue=told["queue"],
        name=told["name"],
        flow_id=None if told["flow_id"] is None else UUID(told["flow_id"]),
        args=told["args"],
        attempt=told["attempt"],
        failed_at=None if at is None else datetime.fromisoformat(at),
        priority=told["priority"],
        tags=tuple(told["tags"] or ()),
    )
