"""Flowrun's own jobs: ends of flows, joins, verdicts, gates, sleeps and maps. They are done where they are claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from flowrun import codec, mint
from flowrun.core.attempt import Attempted, Claimed, Ending, Success
from flowrun.core.growth import Expansion, Parked
from flowrun.core.plan import JobRow
from flowrun.core.references import Unresolved, put_back
from flowrun.core.states import Kind, Outcome
from flowrun.errors import NotReadable
from flowrun.logs import Log
from flowrun.sealing import PLAIN, Sealing
from flowrun.sealing.attempts import opened
from flowrun.sealing.sealing import JSON_MARK
from flowrun.store.pool import Id

logger = Log("flowrun.worker")

_BAD = (Outcome.FAILED, Outcome.CANCELLED)


@dataclass(slots=True)
class Known:
    """What they need to know of the rest."""

    verdicts: Mapping[UUID, int] = field(default_factory=dict)
    """By flow: the worst outcome of its jobs, where one did not succeed; SUCCEEDED where all did although somebody
    cancelled it."""
    outcomes: Mapping[UUID, tuple[int, bool]] = field(default_factory=dict)
    """Of the items of maps: outcome, and whether their failure counts for nothing."""
    compensated: Mapping[UUID, str] = field(default_factory=dict)
    """By flow: how its compensations went."""


def do(job: Claimed, known: Known, sealing: Sealing = PLAIN) -> Attempted:
    """What comes of one of flowrun's own jobs."""
    try:
        if sealing.active or _is_sealed(job):
            opened(sealing, job)
        return _do(job, known)
    except NotReadable as error:
        return _failed(job, str(error), "flowrun.errors.NotReadable")
    except Exception as error:  # noqa: BLE001 - whoever can write into the tables may have written anything
        logger.error("job %s (%s) cannot be read, so it fails: %r", job.id, job.type, error)  # noqa: TRY400 - one line
        return _failed(job, f"what is stored of it cannot be read: {error!r}"[:500])


def _do(job: Claimed, known: Known) -> Attempted:
    match Kind(job.kind):
        case Kind.END:
            return _end(job, known)
        case Kind.VERDICT:
            bad = job.flow_id is not None and known.verdicts.get(job.flow_id) in _BAD
            return _failed(job) if bad else Success(job.id, job.lease, job.attempt, None)
        case Kind.GATE:
            return _gate(job)
        case Kind.MAP:
            return _gather(job, known) if is_expanded(job) else _expand(job)
        case _:
            return Success(job.id, job.lease, job.attempt, None)


def is_expanded(job: Claimed) -> bool:
    """Whether a map's items are there already: it is claimed once before and once after them."""
    return bool(job.bindings == "[]")


def _end(job: Claimed, known: Known) -> Attempted:
    worst = known.verdicts.get(job.id)
    if worst in _BAD:
        detail = known.compensated.get(job.id)
        error = None if detail is None else codec.dump({"detail": detail})
        return Ending(job.id, job.lease, job.attempt, Outcome(worst), error=error)
    result = None if job.bindings is None else codec.dump(_arguments(job)["result"])
    if worst is None:
        return Success(job.id, job.lease, job.attempt, result)
    # The clear way of settling, which takes away that it was asked to stop.
    return Ending(job.id, job.lease, job.attempt, Outcome.SUCCEEDED, result=result)


def _gate(job: Claimed) -> Attempted:
    asked = codec.load(job.args)
    default = codec.dump(asked["default"]) if "default" in asked else None
    parked = Parked(asked["signal"], asked.get("timeout"), default)
    return Ending(job.id, job.lease, job.attempt, None, more=parked, flow_id=job.flow_id)


def _expand(job: Claimed) -> Attempted:
    try:
        asked = _arguments(job)
    except Unresolved as error:
        return _failed(job, str(error).removeprefix("argument 'over': "))
    items = asked["over"]
    if items is None and None in (job.values or ()):
        return _failed(job, "a map is over a list; its source did not succeed, so there is none")
    if not isinstance(items, list):
        return _failed(job, f"a map is over a list; its source is {_kind(items)}")
    if not items:
        return Success(job.id, job.lease, job.attempt, "[]")
    if job.flow_id is None:
        return _failed(job, "a map is a node of a flow")
    rows = _items(job, items, asked)
    args = codec.dump({"on_error": asked["on_error"], "items": len(items)})
    expansion = Expansion(job.id, job.flow_id, rows, args)
    return Ending(job.id, job.lease, job.attempt, None, more=expansion, flow_id=job.flow_id)


def _items(job: Claimed, items: Sequence[Any], asked: dict[str, Any]) -> list[JobRow]:
    own = codec.load(job.options or "{}")
    like = own["item"]
    stored = {**(like["options"] or {}), **({"stays": True} if own.get("stays") else {})}
    options = codec.dump(stored) if stored else None
    run_at = None if like["run_at"] is None else datetime.fromisoformat(like["run_at"])
    rest: tuple[Any, ...] = (like["priority"], like["optional"], like["delay"], run_at, options, [])
    ids = mint.item_ids(job.id, len(items), Id)

    def row(number: int, id: UUID, item: Any) -> JobRow:
        args = codec.dump({**asked["with"], asked["argument"]: item})
        name = f"{job.name}[{number}]"
        return JobRow(id, job.flow_id, Kind.HANDLER, name, like["queue"], like["type"], args, None, None, *rest)

    return [row(number, id, item) for number, (id, item) in enumerate(zip(ids, items, strict=True))]


def _gather(job: Claimed, known: Known) -> Attempted:
    ends = [known.outcomes.get(id, (Outcome.SKIPPED, False)) for id in job.sources or ()]
    bad = [outcome for outcome, optional in ends if outcome in _BAD and not (optional and outcome == Outcome.FAILED)]
    if bad:
        failed = sum(outcome == Outcome.FAILED for outcome in bad)
        message = f"{failed} of {len(ends)} items failed" if failed else "some of its items were cancelled"
        error = codec.dump({"type": "flowrun.MapFailed", "message": message})
        return Ending(job.id, job.lease, job.attempt, Outcome(min(bad)), error=error)
    return Success(job.id, job.lease, job.attempt, f"[{','.join(value or 'null' for value in job.values or ())}]")


def _arguments(job: Claimed) -> dict[str, Any]:
    arguments: dict[str, Any] = codec.load(job.args)
    if job.bindings is not None:
        put_back(arguments, codec.load(job.bindings), [None if v is None else codec.load(v) for v in job.values or ()])
    return arguments


def _is_sealed(job: Claimed) -> bool:
    return JSON_MARK in job.args or any(value is not None and value.startswith(JSON_MARK) for value in job.values or ())


def _failed(job: Claimed, message: str | None = None, kind: str = "flowrun.InvalidFlow") -> Ending:
    error = None if message is None else codec.dump({"type": kind, "message": message})
    return Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=error)


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
