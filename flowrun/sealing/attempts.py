"""Attempts: the job as its handler gets it, and what came of it as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Attempted, Claimed, Ending, Failure, Success
from flowrun.core.growth import Expansion, Parked
from flowrun.core.parents import Ancestor, Parents
from flowrun.core.states import Kind, Outcome
from flowrun.sealing import rows
from flowrun.sealing.sealing import Sealing, foreign


def opened(sealing: Sealing, job: Claimed) -> None:
    """Open, in place, what a claimed job has: its arguments, the results it uses, its parents, the failure because of
    which it runs. Raises NotReadable."""
    failed = rows.callback_of(job.options)
    job.args = codec.dump(rows.opened_args(sealing, job.kind, job.args, job.id, failed))
    if job.kind == Kind.MAP:
        job.options = rows.opened_options(sealing, job.options, job.id)
    elif failed is not None:
        job.options = codec.dump({**codec.load(job.options or "{}"), "failure": _failure(sealing, job.options, failed)})
    if job.values is not None:
        sources = job.sources or ()
        job.values = [
            None if value is None else sealing.opened_json(value, source, "result")
            for source, value in zip(sources, job.values, strict=True)
        ]
    if job.parents is not None:
        job.parents = Parents(_ancestors(sealing, job.parents.written), _ancestors(sealing, job.parents.full))


def sealed(sealing: Sealing, attempted: Attempted) -> Attempted:
    """How an attempt came out, as it is to be stored. What a codec refuses to seal is not stored: the job fails."""
    try:
        if isinstance(attempted, Success):
            return attempted._replace(result=_result(sealing, attempted))
        return attempted._replace(
            result=_result(sealing, attempted),
            failure=None if attempted.failure is None else _sealed_failure(sealing, attempted.id, attempted.failure),
            error=_sealed_error(sealing, attempted.id, attempted.error),
            more=_sealed_more(sealing, attempted),
        )
    except Exception as error:  # noqa: BLE001 - a codec of the user's
        message = f"what it came to cannot be encrypted: the codec raised {type(error).__name__}"
        failure = Failure("flowrun.ResultNotStorable", message, None)
        stored = codec.dump({"type": failure.error_type, "message": message})
        return Ending(attempted.id, attempted.lease, attempted.attempt, Outcome.FAILED, failure=failure, error=stored)


def signal_field(name: str) -> str:
    """The field of a signal's value, whose owner is the outermost flow."""
    return f"signal {name}"


def error_of(sealing: Sealing, error: str | None, owner: object) -> dict[str, Any]:
    """What is stored with an outcome that is no success, for people."""
    stored: dict[str, Any] = codec.load(error) if error else {}
    if "message" in stored:
        stored["message"] = sealing.shown_text(stored["message"], owner, "error")
    return stored


def _result(sealing: Sealing, attempted: Success | Ending) -> str | None:
    return None if attempted.result is None else sealing.json(attempted.result, attempted.id, "result")


def _sealed_failure(sealing: Sealing, id: UUID, failure: Failure) -> Failure:
    return failure._replace(
        message=sealing.text(failure.message, id, "message"),
        traceback=None if failure.traceback is None else sealing.text(failure.traceback, id, "traceback"),
        detail=None if failure.detail is None else sealing.json(failure.detail, id, "detail"),
    )


def _sealed_error(sealing: Sealing, id: UUID, error: str | None) -> str | None:
    """The type stays readable: the dead letter is searched by it."""
    if error is None:
        return None
    stored: dict[str, Any] = codec.load(error)
    if isinstance(message := stored.get("message"), str):
        stored["message"] = sealing.text(message, id, "error")
    return codec.dump(stored)


def _sealed_more(sealing: Sealing, ending: Ending) -> Any:
    """An outbox is sealed where it is made."""
    more = ending.more
    if isinstance(more, Expansion):
        more.items = [rows.row(sealing, one) for one in more.items]
    elif isinstance(more, Parked):

        def taken(root: UUID, value: str) -> str:
            opened = sealing.opened_json(value, root, signal_field(more.signal))
            return sealing.json(opened, ending.id, "result")

        default = None if more.default is None else sealing.json(more.default, ending.id, "result")
        return more._replace(default=default, taken=taken)
    return more


def _failure(sealing: Sealing, options: str | None, failed: str) -> dict[str, Any]:
    told: dict[str, Any] = codec.load(options or "{}")["failure"]
    for name, field in (("message", "error"), ("traceback", "traceback")):
        if told[name] is not None:
            told[name] = sealing.opened_text(told[name], failed, field)
    if foreign(told["detail"]):
        told["detail"] = codec.load(sealing.opened_json(codec.dump(told["detail"]), failed, "detail"))
    if foreign(told["args"]):
        told["args"] = codec.load(sealing.opened_json(codec.dump(told["args"]), failed, "args"))
    return told


def _ancestors(sealing: Sealing, found: Mapping[str, Ancestor]) -> dict[str, Ancestor]:
    return {
        name: one._replace(
            result=None if one.result is None else sealing.opened_json(one.result, one.id, "result"),
            error=None if one.error is None else codec.dump(_opened_error(sealing, one.error, one.id)),
        )
        for name, one in found.items()
    }


def _opened_error(sealing: Sealing, error: str, id: UUID) -> dict[str, Any]:
    stored: dict[str, Any] = codec.load(error)
    owner = stored.pop("of", id)  # of a flow that failed: the job because of which
    if isinstance(stored.get("message"), str):
        stored["message"] = sealing.opened_text(stored["message"], owner, "error")
    return stored
