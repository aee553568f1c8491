"""A short run of chaos. ``python -m tests.chaos --minutes 10`` plays longer ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.chaos import checker
from tests.chaos.checker import Evidence
from tests.chaos.journal import Line
from tests.chaos.run import Plan, play

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the server's user can get at."""
    place = Path(tempfile.mkdtemp(prefix="flowrun-chaos-"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


async def test_nothing_is_lost_and_a_checker_that_would_have_seen_it(place: Path) -> None:
    report = await play(Plan(seed=5, seconds=6.0, place=place, workers=2, rate=20.0, pause=0.9))
    histories = place / "histories"
    assert not report.problems, "\n".join([*map(str, report.problems), histories.read_text()])
    assert report.valid, f"of {report.planned} faults only {report.injected} came about"
    assert report.counts["jobs"] > 200
    assert report.evidence is not None
    for invariant, tamper in TAMPERED.items():
        tampered = tamper(report.evidence)
        found = {problem.invariant for one in TOLD.get(invariant, checker.CHECKS) for problem in one(tampered)}
        assert invariant in found, f"{invariant} is broken, and the checker finds {found}"


def changed(evidence: Evidence, **fields: Any) -> Evidence:
    other = copy(evidence)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def row(evidence: Evidence, fits: Callable[[Any], bool], **values: Any) -> Evidence:
    """The same with the first job that fits changed: None takes it out."""
    id, found = next((id, found) for id, found in evidence.jobs.items() if fits(found))
    new = {**dict(found), **values}
    jobs = {**evidence.jobs, id: new}
    members = {root: [new if one["id"] == id else one for one in rows] for root, rows in evidence.members.items()}
    return changed(evidence, jobs=jobs, members=members)


def attempt(evidence: Evidence, fits: Callable[[Any], bool], **values: Any) -> Evidence:
    """The same with the first attempt that fits done once more, a little different."""
    found = next(one for one in evidence.attempts if fits(one))
    other = copy(found)
    for name, value in values.items():
        setattr(other, name, value)
    by_job = {**evidence.by_job, found.job: [*evidence.by_job[found.job], other]}
    return changed(evidence, attempts=[*evidence.attempts, other], by_job=by_job, faults=[], deaths={})


def without_first(evidence: Evidence) -> Evidence:
    id = next(id for id, found in evidence.jobs.items() if found["type"] == "relay" and found["root_id"] is None)
    return changed(evidence, jobs={key: value for key, value in evidence.jobs.items() if key != id})


def lines(evidence: Evidence, *more: tuple[str, float, dict[str, Any]]) -> Evidence:
    """The same with lines added to its journals, and no fault to blame."""
    added = [Line(event, at, 1, about) for event, at, about in more]
    return changed(evidence, lines=[*evidence.lines, *added], faults=[], deaths={})


def ticks(evidence: Evidence, runs: Callable[[list[Any]], list[Any]]) -> Evidence:
    """The same with other runs of the schedules."""
    found = [dict(run) for run in evidence.ticked.runs]
    return changed(evidence, ticked=replace(evidence.ticked, runs=runs(found)))


def paused(evidence: Evidence) -> Evidence:
    start = next(one.start for one in evidence.attempts if one.about.get("type") == "relay")
    return lines(evidence, ("paused", start - 2, {}), ("resumes", start + 1, {}))


def added(evidence: Evidence, *rows: dict[str, Any]) -> Evidence:
    """The same with more jobs."""
    return changed(evidence, jobs={**evidence.jobs, **{row["id"]: row for row in rows}})


def job(type: str, **values: Any) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "type": type,
        "number": 1,
        "outcome": 1,
        "attempt": 1,
        "token": None,
        "root_id": None,
        "error_type": None,
    } | values


def relayed(found: Any) -> bool:
    return found["type"] == "relay" and found["root_id"] is not None


TAMPERED: dict[str, Callable[[Evidence], Evidence]] = {
    "I10 lost": without_first,
    "I19 result": lambda evidence: row(evidence, relayed, token="another"),
    "I19 given": lambda evidence: attempt(
        evidence, lambda a: a.about.get("type") == "relay" and a.about["given"], about={"given": ["another"]}
    ),
    "I13 overlap": lambda evidence: attempt(evidence, lambda a: a.about.get("type") == "relay" and a.end > a.start),
    "I1 order": lambda evidence: attempt(
        evidence, lambda a: a.about.get("type") == "relay" and a.about["given"], start=0.0
    ),
    "I16 reference": lambda evidence: row(
        evidence, lambda found: found["type"] == "varied-act" and found["outcome"] == 1, outcome=2
    ),
    "I8 effects": lambda evidence: changed(evidence, effects=[*evidence.effects, *evidence.effects[:1]]),
    "I11 outbox": lambda evidence: row(evidence, lambda found: found["type"] == "follower", by="another"),
    "ticks lost": lambda evidence: ticks(
        evidence, lambda runs: [run for n, run in enumerate(runs) if run["schedule"] != "all" or n % 2]
    ),
    "ticks twice": lambda evidence: ticks(evidence, lambda runs: [runs[0], *runs]),
    "ticks overlap": lambda evidence: ticks(
        evidence,
        lambda runs: [{**run, "started_at": run["tick"], "finished_at": run["tick"] + timedelta(9)} for run in runs],
    ),
    "retention": lambda evidence: changed(evidence, misplaced=[("retention", "removed")]),
    "pause": paused,
    "debounce": lambda evidence: lines(
        evidence,
        ("intent", 1e9, {"kind": "debounced", "number": -1}),
        ("ack", 1e9, {"kind": "debounced", "number": -1, "id": str(UUID(int=1))}),
    ),
    "throttle": lambda evidence: added(
        evidence,
        *(job("throttled", created_at=datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)) for second in (1, 2)),
    ),
    "on_failure": lambda evidence: added(evidence, job("failing", outcome=2)),
    "process result": lambda evidence: added(evidence, job("compute")),
    "process crash": lambda evidence: lines(
        evidence, ("computes", 1.0, {"job": str(UUID(int=1)), "n": 1, "worker": 1, "how": "exit"})
    ),
    "deadlock": lambda evidence: changed(
        evidence,
        deadlocks=checker.read_deadlocks(
            "2026-01-01 ERROR:  deadlock detected\n"
            "2026-01-01 DETAIL:  Process 1 waits for ShareLock on transaction 7; blocked by process 2.\n"
            "\tProcess 2 waits for ShareLock on transaction 8; blocked by process 1.\n"
            "2026-01-01 HINT:  See server log for query details.\n"
        ),
    ),
    "poison": lambda evidence: added(evidence, job("relay", outcome=2, error_type="flowrun.WorkerLost")),
    "misbehaving": lambda evidence: added(evidence, job("misbehaving", outcome=2)),
    "context": lambda evidence: lines(evidence, ("leaked", 1.0, {"job": str(UUID(int=1)), "of": "another"})),
    "I18 changed": lambda evidence: changed(
        evidence, frozen={id: (9,) for id in list(evidence.jobs)[:50] if id not in evidence.audited}
    ),
}
"""By invariant: what breaks it."""
TOLD: dict[str, list[Callable[[Evidence], list[checker.Problem]]]] = {
    **dict.fromkeys(["ticks lost", "ticks twice", "ticks overlap"], [checker.ticks]),
    **dict.fromkeys(
        [
            "pause",
            "debounce",
            "throttle",
            "on_failure",
            "process result",
            "process crash",
            "poison",
            "misbehaving",
            "context",
        ],
        [checker.of_others],
    ),
    "retention": [checker.pruned],
}
"""By invariant: who has to see it, where what is made up would confuse the others."""
