"""Jobs to be: the parts of their rows that a program has given, sealed under the ids that they will have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from flowrun import codec
from flowrun.core.plan import JobRow, Plan
from flowrun.core.states import Kind
from flowrun.errors import InvalidFlow, NotReadable
from flowrun.sealing.sealing import Sealing, foreign

_INSIDE: Final = "sealed"
_LOOKED_INTO: Final[Mapping[int, frozenset[str]]] = {
    Kind.GATE: frozenset({"signal", "timeout"}),
    Kind.MAP: frozenset({"on_error", "items"}),
}
"""Arguments that the database looks into, by kind; the others of these kinds are sealed beside them."""

Turn = Callable[[str, object, str], str]
"""From JSON, whose it is and which field, to JSON: sealed, or opened."""


def plan(sealing: Sealing, plan: Plan) -> Plan:
    """A plan as it is to be stored. Raises InvalidFlow for what the database cannot decide then."""
    if sealing.active and plan.jobs:
        _refuse_tests(plan)
        _replace(plan, {row.id: _turned(row, row.id, sealing.json) for row in plan.jobs})
    return plan


def row(sealing: Sealing, row: JobRow) -> JobRow:
    """A row as it is to be stored."""
    return _turned(row, row.id, sealing.json) if sealing.active else row


def to_schedule(sealing: Sealing, plan: Plan, key: str) -> Plan:
    """A plan that was compiled with placeholders, as the schedule ``key`` keeps it. Raises InvalidFlow."""
    if sealing.active:
        _refuse_tests(plan)
        _replace(plan, {row.id: _turned(row, _place(key, row.id.int), sealing.json) for row in plan.jobs})
    return plan


def from_schedule(sealing: Sealing, plan: Plan, key: str, numbers: Sequence[int]) -> Plan:
    """The plan of a tick; ``numbers`` are those of its jobs in the template. Raises NotReadable."""
    opened = [
        _turned(row, _place(key, number), sealing.opened_json) for row, number in zip(plan.jobs, numbers, strict=True)
    ]
    _replace(plan, {row.id: _turned(row, row.id, sealing.json) if sealing.active else row for row in opened})
    return plan


def opened_template(sealing: Sealing, template: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """A template as it was before it was sealed, to be compared; None: it cannot be opened."""
    try:
        jobs = [_opened_job(sealing, job, _place(key, job["id"])) for job in template["jobs"]]
    except NotReadable:
        return None
    return {**template, "jobs": jobs}


def opened_args(sealing: Sealing, kind: int, args: str, owner: object, callback_of: object = None) -> dict[str, Any]:
    """A job's arguments. Those of one that runs because of a failure are bound to the job that failed. Raises
    NotReadable."""
    if callback_of is not None:
        text = sealing.opened_json(args, callback_of, "on_failure")
    else:
        text = _turned_args(kind, args, owner, sealing.opened_json)
    arguments = codec.load(text)
    if not isinstance(arguments, dict):
        raise NotReadable(f"the arguments of {owner}: unknown encoding")
    return arguments


def sealed_args(sealing: Sealing, kind: int, args: Mapping[str, Any], owner: object, callback_of: object = None) -> str:
    """The same arguments as they are to be stored."""
    text = codec.dump(dict(args))
    if callback_of is not None:
        return sealing.json(text, callback_of, "on_failure")
    return _turned_args(kind, text, owner, sealing.json) if sealing.active else text


def shown_args(sealing: Sealing, kind: int, args: str, owner: object, callback_of: object = None) -> dict[str, Any]:
    """The same for people: what cannot be opened is said to be so."""
    try:
        return opened_args(sealing, kind, args, owner, callback_of)
    except (NotReadable, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        stored = codec.look(args)
        token = stored.get(_INSIDE) if isinstance(stored, dict) else stored
        return {"...": sealing.shown_text(token, owner, "args") if foreign(token) else "unknown encoding"}


def callback_of(options: str | None) -> str | None:
    """The failed job because of which a job runs, if it does."""
    if options is None or '"failure"' not in options:
        return None
    failure = codec.look_into(options).get("failure")
    return failure.get("job_id") if isinstance(failure, dict) else None


def opened_options(sealing: Sealing, options: str | None, owner: object) -> str | None:
    """A map's options: what each of its items is to run after a failure is opened."""
    return _turned_options(options, owner, sealing.opened_json)


def _refuse_tests(plan: Plan) -> None:
    asking = {child for _, child, _, test in plan.tests if '"op"' in test}
    if asking:
        names = ", ".join(repr(row.name) for row in plan.jobs if row.id in asking)
        raise InvalidFlow(
            f"node {names} asks something of a parent's result, as when() does: that is decided in the database, which "
            "cannot look into what is encrypted; let the parent's handler decide, by failing or by job.spawn()"
        )


def _replace(plan: Plan, rows: Mapping[UUID, JobRow]) -> None:
    """In place: of jobs without a flow, those that are free are the same list."""
    free = plan.jobs if plan.free is plan.jobs else [rows[row.id] for row in plan.free]
    plan.jobs[:] = [rows[row.id] for row in plan.jobs]
    plan.free = free


def _place(key: str, number: int) -> str:
    """Whose the values of a job in a template are. No job has such an id."""
    return f"{number} of schedule {key}"


def _turned(row: JobRow, owner: object, turn: Turn) -> JobRow:
    args = _turned_args(row.kind, row.args, owner, turn)
    options = _turned_options(row.options, owner, turn)
    return row._replace(args=args, options=options)


def _turned_args(kind: int, args: str, owner: object, turn: Turn) -> str:
    if kind == Kind.HANDLER:
        return turn(args, owner, "args")
    clear = _LOOKED_INTO.get(kind)
    if clear is None:
        return args
    asked = codec.load(args)
    if not isinstance(asked, dict):
        return args  # no arguments that flowrun has written
    if _INSIDE in asked:
        inside = codec.load(turn(codec.dump(asked.pop(_INSIDE)), owner, "args"))
        return codec.dump({**asked, **inside} if isinstance(inside, dict) else inside)
    given = {name: asked.pop(name) for name in list(asked) if name not in clear}
    if not given:
        return args
    inside = turn(codec.dump(given), owner, "args")
    sealed = codec.load(inside)
    return codec.dump({**asked, _INSIDE: sealed} if foreign(sealed) else {**asked, **given})


def _turned_options(options: str | None, owner: object, turn: Turn) -> str | None:
    if options is None or '"on_failure"' not in options:
        return options
    stored: dict[str, Any] = codec.load(options)
    for said in (stored, stored.get("item", {}).get("options") or {}):
        if "on_failure" in said:
            call = said["on_failure"]
            args = turn(codec.dump(call["args"]), owner, "on_failure")
            said["on_failure"] = {**call, "args": codec.load(args)}
    return codec.dump(stored)


def _opened_job(sealing: Sealing, job: Mapping[str, Any], owner: str) -> dict[str, Any]:
    opened = dict(job)
    args = _turned_args(job.get("kind", 0), codec.dump(job.get("args", {})), owner, sealing.opened_json)
    opened["args"] = codec.load(args)
    if job.get("options"):
        options = _turned_options(codec.dump(job["options"]), owner, sealing.opened_json)
        opened["options"] = codec.load(options or "null")
    return opened
