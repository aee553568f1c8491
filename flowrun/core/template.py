"""A compiled dispatch as data, to be made again and again: its rows with numbers in the place of ids.

What is kept is what JSON can carry, so that whoever knows no line of the program that wrote a schedule makes its jobs.
Number 0 is the job, or the flow; the jobs of a flow are numbered from 1 on in topological order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from flowrun.core.compile import Dump
from flowrun.core.plan import DeadlineRow, FlowRow, JobRow, Plan
from flowrun.core.states import Deadline, Kind
from flowrun.errors import ConfigurationError

Template: TypeAlias = "dict[str, Any]"

VERSION: Final = 1
_JSON: Final = ("args", "bindings", "options")
"""Columns of jobs that are JSON themselves."""
_IDS: Final = ("compensates", "verdict")
"""Options of jobs that name another job of the flow."""
_USUAL: Final[Mapping[str, Any]] = {
    "flow_id": None, "kind": 0, "name": None, "queue": "default", "args": {}, "sources": None, "bindings": None,
    "priority": 5, "optional": False, "delay": None, "options": None, "parents": None,
}  # fmt: skip
"""Values that are not written."""


def placeholder() -> UUID:
    """The id of a job in a template."""
    return UUID(int=0)


def placeholders(count: int) -> tuple[UUID, Iterable[UUID]]:
    """The id of a flow in a template, and those of its jobs."""
    return UUID(int=0), [UUID(int=number) for number in range(1, count + 1)]


def to_template(plan: Plan, load: Callable[[str], Any], where: str) -> Template:
    """A plan that was compiled with placeholders, as data.

    Raises ConfigurationError for what makes sense once only: a key, a moment.
    """
    if plan.keys:
        raise ConfigurationError(f"{where} cannot have key=: each tick has one of its own; see overlap=")
    if any(row.run_at is not None for row in plan.jobs) or any(row.due_at is not None for row in plan.deadlines):
        raise ConfigurationError(
            f"{where} runs again and again: it cannot have run_at=, nor a start_by= that is a moment; "
            "delay= and start_by= in seconds count from each tick"
        )
    written: Template = {"version": VERSION, "jobs": [_job_data(row, load) for row in plan.jobs]}
    if any(job.get("kind") == Kind.MAP and job["options"]["item"]["run_at"] is not None for job in written["jobs"]):
        raise ConfigurationError(f"{where} runs again and again: the items of its map cannot have run_at=")
    free = {row.id for row in plan.free}
    if plan.flows:
        written["flows"] = [[flow.id.int, flow.name, flow.tags] for flow in plan.flows]
        written["edges"] = [[parent.int, child.int, condition] for parent, child, condition in plan.edges]
        written["tests"] = [
            [parent.int, child.int, condition, _test_data(load(test))] for parent, child, condition, test in plan.tests
        ]
        written["blocked"] = [[id.int, need, open] for id, need, open in plan.blocked]
        written["free"] = [row.id.int for row in plan.jobs if row.id in free]
    if plan.deadlines:
        written["deadlines"] = [[row.id.int, int(row.kind), row.delay] for row in plan.deadlines]
    return written


def from_template(
    template: Template,
    mint: Callable[[int], tuple[UUID, Iterable[UUID]]],
    dump: Dump,
    more: Mapping[str, Any],
) -> tuple[Plan, UUID]:
    """The plan under new ids, and the id of the job or the flow.

    ``mint(n)`` gives that one, and ``n`` growing ones for the jobs of a flow. ``more`` is stored with the options of
    all jobs that have a handler. Raises ConfigurationError for a template of a later version of flowrun.
    """
    if template["version"] != VERSION:
        raise ConfigurationError("the schedule was written by a later version of flowrun; upgrade this one")
    first, minted = mint(len(template["jobs"]) if "flows" in template else 0)
    ids = [first, *minted]
    plan = Plan(jobs=[_job_row(data, ids, dump, more) for data in template["jobs"]])
    plan.free = plan.jobs
    if "flows" in template:
        free = {ids[number] for number in template["free"]}
        plan.free = [row for row in plan.jobs if row.id in free]
        plan.flows = [FlowRow(ids[number], first, name, tags) for number, name, tags in template["flows"]]
        plan.edges = [(ids[parent], ids[child], condition) for parent, child, condition in template["edges"]]
        plan.tests = [
            (ids[parent], ids[child], condition, dump(_test_row(test, ids)))
            for parent, child, condition, test in template["tests"]
        ]
        plan.blocked = [(ids[number], need, open) for number, need, open in template["blocked"]]
    plan.deadlines = [
        DeadlineRow(ids[number], Deadline(kind), delay, None) for number, kind, delay in template.get("deadlines", ())
    ]
    return plan, first


def tick_options(schedule: str, tick: datetime) -> dict[str, Any]:
    """What a job knows of the schedule and the tick it was dispatched for, as it is stored."""
    return {"schedule": schedule, "scheduled_for": tick.isoformat()}


def _job_data(row: JobRow, load: Callable[[str], Any]) -> dict[str, Any]:
    data = row._asdict()
    del data["run_at"]
    for name in _JSON:
        if data[name] is not None:
            data[name] = load(data[name])
    data["id"] = row.id.int
    data["flow_id"] = None if row.flow_id is None else row.flow_id.int
    for name in ("sources", "parents"):
        if data[name] is not None:
            data[name] = [id.int for id in data[name]]
    for name in _IDS:
        if data["options"] is not None and name in data["options"]:
            data["options"][name] = UUID(data["options"][name]).int
    data["kind"] = int(row.kind)
    return {name: value for name, value in data.items() if name not in _USUAL or value != _USUAL[name]}


def _job_row(data: Mapping[str, Any], ids: list[UUID], dump: Dump, more: Mapping[str, Any]) -> JobRow:
    values: dict[str, Any] = {**_USUAL, "run_at": None, **data}
    values["id"] = ids[data["id"]]
    values["flow_id"] = None if values["flow_id"] is None else ids[values["flow_id"]]
    for name in ("sources", "parents"):
        if values[name] is not None:
            values[name] = [ids[number] for number in values[name]]
    options = dict(values["options"] or {})
    for name in _IDS:
        if name in options:
            options[name] = str(ids[options[name]])
    if values["kind"] == Kind.HANDLER:
        options |= more
    if values["kind"] == Kind.MAP:
        options["item"] = {**options["item"], "options": {**options["item"]["options"], **more}}
    values["options"] = dump(options) if options else None
    values["args"] = dump(values["args"])
    values["bindings"] = None if values["bindings"] is None else dump(values["bindings"])
    return JobRow(**values)


def _test_data(test: dict[str, Any]) -> dict[str, Any]:
    return {**test, "rivals": [UUID(id).int for id in test["rivals"]]} if "rivals" in test else test


def _test_row(test: dict[str, Any], ids: list[UUID]) -> dict[str, Any]:
    return {**test, "rivals": [str(ids[number]) for number in test["rivals"]]} if "rivals" in test else test
