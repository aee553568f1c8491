"""A short run of chaos. ``python -m tests.chaos --minutes 10`` plays longer ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import checker
from tests.chaos.checker import Evidence
from tests.chaos.run import Plan, play

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the server's user can get at."""
    place = Path(tempfile.mkdtemp(prefix="flowrun-chaos-"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


async def test_nothing_is_lost_and_a_checker_that_would_have_seen_it(place: Path) -> None:
    report = await play(Plan(seed=5, seconds=8.0, place=place, workers=2, rate=16.0, pause=1.1))
    histories = place / "histories"
    assert not report.problems, "\n".join([*map(str, report.problems), histories.read_text()])
    assert report.valid, f"of {report.planned} faults only {report.injected} came about"
    assert report.counts["jobs"] > 200
    assert report.evidence is not None
    for invariant, tamper in TAMPERED.items():
        found = {problem.invariant for one in checker.CHECKS for problem in one(tamper(report.evidence))}
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
    "I18 changed": lambda evidence: changed(
        evidence, frozen={id: (9,) for id in list(evidence.jobs)[:50] if id not in evidence.audited}
    ),
}
"""By invariant: what breaks it."""
