"""What must hold of processes for handlers, of keys that expire, of callbacks, and of queues that are paused."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from tests.chaos import computing, flows, journal
from tests.chaos.journal import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.checker import Evidence

Said = tuple[str, str, "UUID | None"]
HEARD = 0.5
"""Seconds after a pause in which a handler may still write that it has begun: it had, this machine is just slow."""
DIED = {"exit": ("ProcessDied",), "kill": ("ProcessDied",), "raise": ("ValueError",), "leave": ("SystemExit",)}
"""By how an attempt in a process ended: what is recorded of it."""


def processes(evidence: Evidence) -> Iterator[Said]:
    """A crash is a failed attempt and no more; what succeeded was computed; nobody outlives the run."""
    begun: dict[tuple[str, int], list[Line]] = defaultdict(list)
    results: dict[tuple[str, int], set[str]] = defaultdict(set)
    for line in journal.of(evidence.lines, "computes"):
        begun[line.about["job"], line.about["n"]].append(line)
        if computing.is_child(line.pid):
            yield "process orphan", f"still there after its worker: {line}", UUID(line.about["job"])
    for line in journal.of(evidence.lines, "computed"):
        results[line.about["job"], line.about["n"]].add(line.about["token"])
    for id, row in evidence.jobs.items():
        if row["type"] != "compute":
            continue
        if row["outcome"] != 1:
            yield "process outcome", f"{row['outcome']}: {dict(row)}", id
        elif row["token"] not in results[str(id), row["attempt"]]:
            yield "process result", f"not what was computed: {dict(row)}", id
    for (job, n), lines in begun.items():
        how = lines[0].about["how"]
        said = evidence.errors.get((UUID(job), n))
        if said is None:
            row = evidence.jobs.get(UUID(job))
            again = row is not None and (row["outcome"] == 1 and row["attempt"] == n)
            if how != "well" and (again or not _gone(evidence, lines)):
                yield "process crash", f"its attempt {n} ended by {how!r}, of which nothing is known", UUID(job)
        elif how in DIED and not said.endswith((*DIED[how], "WorkerLost", "ProcessDied")):
            yield "process crash", f"its attempt {n} ended by {how!r}; recorded is {said}", UUID(job)
        elif how == "long" and not said.endswith(("AttemptTimeout", "WorkerLost", "ProcessDied")):
            yield "process timeout", f"its attempt {n} took too long; recorded is {said}", UUID(job)


def _gone(evidence: Evidence, lines: list[Line]) -> bool:
    """Whether the worker of one of these ended: it may have handed the attempt back."""
    return any(line.about["worker"] in evidence.deaths for line in lines)


def debounced(evidence: Evidence) -> Iterator[Said]:
    """What happened before a dispatch is dealt with by a job that starts after it."""
    last: dict[str, float] = defaultdict(float)
    for attempt in evidence.attempts:
        if attempt.about.get("type") == "debounced" and attempt.ended:
            key = flows.held_key(attempt.about["number"])
            last[key] = max(last[key], attempt.start)
    asked = {
        line.about["number"]: line.at
        for line in journal.of(evidence.lines, "intent")
        if line.about["kind"] == "debounced"
    }
    for line in journal.of(evidence.lines, "ack"):
        if line.about["kind"] == "debounced":
            key, at = flows.held_key(line.about["number"]), asked[line.about["number"]]
            if last[key] < at:
                yield "debounce", f"nothing ran after it: {line}", UUID(line.about["id"])


def throttled(evidence: Evidence) -> Iterator[Said]:
    """Of a key no two jobs are dispatched within its time."""
    by_key = defaultdict(list)
    for id, row in evidence.jobs.items():
        if row["type"] == "throttled":
            by_key[flows.held_key(row["number"])].append((row["created_at"], id))
    for key, found in by_key.items():
        found.sort()
        for (before, _), (after, id) in zip(found, found[1:], strict=False):
            if (after - before).total_seconds() < flows.THROTTLE - 0.01:
                yield "throttle", f"{key}: {(after - before).total_seconds():.3f} s after the one before", id


def callbacks(evidence: Evidence) -> Iterator[Said]:
    """A job that failed for good has called its callback, once; another has not. And it ran."""
    called: dict[UUID, list[UUID]] = defaultdict(list)
    for id, row in evidence.jobs.items():
        if row["type"] == "failing.on_failure":
            called[UUID(row["of"])].append(id)
            if row["outcome"] != 1:
                yield "on_failure", f"has not succeeded: {dict(row)}", id
    told = {line.about["of"] for line in journal.of(evidence.lines, "sorry")}
    for id, row in evidence.jobs.items():
        if row["type"] != "failing":
            continue
        if len(called[id]) != int(row["outcome"] == 2):
            yield "on_failure", f"ended with {row['outcome']} and has called back {len(called[id])} times", id
        if row["outcome"] == 2 and row["number"] not in told:
            yield "on_failure", f"its callback never ran: {dict(row)}", id


def paused(evidence: Evidence) -> Iterator[Said]:
    """While a queue is paused no job of it begins, as soon as the workers have heard of it."""
    old = {line.about["child"] for line in journal.of(evidence.lines, "started") if line.about["old"]}
    spans: list[tuple[float, float]] = []
    for line in evidence.lines:
        if line.event == "paused":
            spans.append((line.at, float("inf")))
        elif line.event == "resumes" and spans:
            spans[-1] = (spans[-1][0], line.at)
    for begin, end in spans:
        for attempt in evidence.attempts:
            if begin + HEARD < attempt.start < end and attempt.pid not in old:
                if not evidence.touched(attempt.pid, begin, attempt.start):
                    late = attempt.start - begin
                    yield "pause", f"began {late:.1f} s after its queue was paused: {attempt}", UUID(attempt.job)


def poison(evidence: Evidence) -> Iterator[Said]:
    """What kills its worker each time is given up in the end, and nothing else is."""
    for id, row in evidence.jobs.items():
        gave_up = row["outcome"] == 2 and row["error_type"] == "flowrun.WorkerLost"
        if row["type"] == "poison" and not gave_up:
            yield "poison", f"is not given up: {dict(row)}", id
        elif gave_up and row["type"] != "poison":
            yield "poison", f"harms no worker, and is given up: {dict(row)}", id


def misbehaving(evidence: Evidence) -> Iterator[Said]:
    """Handlers that cancel themselves and more succeed once they behave; nothing of an attempt is left in the next."""
    for line in journal.of(evidence.lines, "leaked"):
        yield "context", f"an attempt found what another has set: {line}", UUID(line.about["job"])
    for id, row in evidence.jobs.items():
        if row["type"] == "misbehaving" and row["outcome"] != 1:
            yield "misbehaving", f"has not succeeded: {dict(row)}", id


CHECKS = [processes, debounced, throttled, callbacks, paused, poison, misbehaving]
