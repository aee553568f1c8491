"""What must hold after a run: in the database, in the journals, and between the two."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from tests.chaos import flows, journal, others, pruning, ticking
from tests.chaos.faults import Fault
from tests.chaos.journal import Attempt, Line
from tests.chaos.ticking import Ticked
from tests.chaos.worker import LEASE
from tests.model import invariants, varied
from tests.model.varied import expect, expect_again, undone

OUTCOMES = {1: "succeeded", 2: "failed", 3: "cancelled", 4: "skipped", None: "not ended"}
AROUND = LEASE + 2.0
"""Seconds before or after a fault in which it may still explain something: a lease, and the time to find out."""


@dataclass(frozen=True)
class Problem:
    invariant: str
    says: str
    id: UUID | None = None
    """The job or flow."""

    def __str__(self) -> str:
        return f"{self.invariant}: {self.says}"


@dataclass
class Evidence:
    """All that is known of a run."""

    lines: list[Line]
    attempts: list[Attempt]
    faults: list[Fault]
    deaths: dict[int, float]
    jobs: dict[UUID, asyncpg.Record]
    flows: dict[UUID, asyncpg.Record]
    """The outermost ones."""
    members: dict[UUID, list[asyncpg.Record]]
    """By outermost flow: its jobs."""
    audited: set[UUID]
    """Jobs and outermost flows that people have changed by hand."""
    verbs: dict[UUID, set[str]]
    effects: list[tuple[UUID, int]]
    orders: set[int]
    errors: dict[tuple[UUID, int], str]
    """By job and attempt that did not succeed: the type of its error."""
    ticked: Ticked
    removed: tuple[int, int]
    """How many jobs and flows were pruned."""
    misplaced: list[tuple[str, str]]
    """What is wrong with what was pruned."""
    deadlocks: list[str] = field(default_factory=list)
    """What the server says of each."""
    frozen: dict[UUID, tuple[Any, ...]] = field(default_factory=dict)
    """Ended jobs as they were first seen."""
    by_job: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))

    @property
    def lost(self) -> set[tuple[UUID, int]]:
        """Attempts that ended because their worker was given up."""
        return {attempt for attempt, error in self.errors.items() if error == "flowrun.WorkerLost"}

    def counts(self) -> dict[str, int]:
        return {
            "jobs": len(self.jobs),
            "deadlocks": len(self.deadlocks),
            "flows": len(self.flows),
            "attempts": len(self.attempts),
            "run more than once": sum(len({(a.number, a.pid) for a in found}) > 1 for found in self.by_job.values()),
            "given up with their worker": len(self.lost),
            "joins": sum(row["parents"] > 1 for row in self.jobs.values()),
            "dispatches acknowledged": sum(1 for _ in journal.of(self.lines, "ack")),
            "dispatches refused": sum(1 for _ in journal.of(self.lines, "refused")),
            "pruned jobs": self.removed[0],
            "pruned flows": self.removed[1],
            "ticks": len(self.ticked.runs),
            "attempts in processes": sum(1 for _ in journal.of(self.lines, "computes")),
            "workers of the version before that left late": sum(1 for _ in journal.of(self.lines, "old and slow")),
            "verbs of operators": sum(1 for _ in journal.of(self.lines, "verb")),
        }

    def ids(self, kind: str, number: int) -> list[UUID]:
        """The flows, or the jobs, that were stored of what was dispatched under a number."""
        return self._numbered().get((kind, number), [])

    def _numbered(self) -> dict[tuple[str, int], list[UUID]]:
        if not hasattr(self, "_by_number"):
            found: dict[tuple[str, int], list[UUID]] = defaultdict(list)
            for id, flow in self.flows.items():
                kind, _, number = flow["name"].replace("flow ", "varied ").partition(" ")
                if number:
                    found[kind, int(number)].append(id)
            for id, job in self.jobs.items():
                if job["flow_id"] is None and job["kind"] == 0 and job["number"] is not None:
                    found[job["type"], job["number"]].append(id)
            self._by_number = found
        return self._by_number

    def touched(self, pid: int, begin: float, end: float) -> bool:
        """Whether a fault may explain what happened to a process then."""
        died = self.deaths.get(pid)
        if died is not None and begin <= died <= end:
            return True
        return any(fault.touches(pid, begin - AROUND, end) for fault in self.faults)


JOBS = """
select j.id, j.flow_id, j.kind, j.name, j.type, j.optional, fl.root_id, f.outcome, f.attempt, f.started_at,
    f.finished_at, f.result ->> 'token' as token, f.error ->> 'type' as error_type, f.error ->> 'message' as error,
    case when jsonb_typeof(j.args -> 'number') = 'number' then (j.args ->> 'number')::bigint end as number,
    j.args ->> 'by' as by, coalesce(cardinality(j.sources), 0) as parents, j.created_at, j.gone_at,
    j.options -> 'failure' ->> 'job_id' as of
from chaos.all_jobs j left join chaos.all_finished f on f.id = j.id left join chaos.all_flows fl on fl.id = j.flow_id
"""
FLOWS = """
select fl.id, fl.name, coalesce((array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome], 'running') as state
from chaos.all_flows fl left join chaos.all_finished f on f.id = fl.id
where fl.id = fl.root_id
"""


async def gather(
    dsn: str,
    place: Path,
    deaths: dict[int, float],
    faults: list[Fault],
    frozen: dict[UUID, tuple[Any, ...]],
    ticked: Ticked,
) -> Evidence:
    lines = journal.read(place)
    connection = await asyncpg.connect(dsn, server_settings={"statement_timeout": "0"})
    try:
        jobs = {row["id"]: row for row in await connection.fetch(JOBS)}
        members: dict[UUID, list[asyncpg.Record]] = defaultdict(list)
        for row in jobs.values():
            if row["root_id"] is not None:
                members[row["root_id"]].append(row)
        verbs: dict[UUID, set[str]] = defaultdict(set)
        for row in await connection.fetch("select flow_id, job_id, verb from chaos.all_audit"):
            for id in (row["flow_id"], row["job_id"]):
                if id is not None:
                    verbs[id].add(row["verb"])
        ticked.runs = await connection.fetch(ticking.RUNS)
        evidence = Evidence(
            lines, journal.attempts(lines, deaths), faults, deaths, jobs,
            {row["id"]: row for row in await connection.fetch(FLOWS)}, members,
            {id for id, found in verbs.items() if found & {"retry", "resolve", "skip"}}, verbs,
            [tuple(row) for row in await connection.fetch("select job, attempt from chaos.effects")],
            {row[0] for row in await connection.fetch("select number from chaos.orders")},
            {(row[0], row[1]): row[2] for row in await connection.fetch(
                "select job_id, attempt, error_type from chaos.all_attempts")},
            ticked, tuple(await connection.fetchrow(pruning.SIZES)), await pruning.broken(connection), frozen,
        )  # fmt: skip
    finally:
        await connection.close()
    for attempt in evidence.attempts:
        evidence.by_job[attempt.job].append(attempt)
    return evidence


async def check(dsn: str, evidence: Evidence) -> list[Problem]:
    """Everything that does not hold."""
    connection = await asyncpg.connect(dsn, server_settings={"statement_timeout": "0"})
    try:
        problems = [Problem(*said.split(": ", 1)) for said in await invariants.broken(connection, True)]
    finally:
        await connection.close()
    for one in CHECKS:
        problems += one(evidence)
    return problems


def read_deadlocks(log: str) -> list[str]:
    """What a server's log tells of its deadlocks."""
    found = re.findall(r"ERROR:  deadlock detected\n(.*?(?=\n\S[^\n]*(?:HINT|CONTEXT|STATEMENT):|\Z))", log, re.DOTALL)
    return [" ".join(one.split()) for one in found]


def deadlocked(evidence: Evidence) -> list[Problem]:
    """Nobody deadlocks, but where an operator has locked a whole table in between."""
    return [Problem("deadlock", what) for what in evidence.deadlocks if "AccessExclusiveLock on relation" not in what]


def ticks(evidence: Evidence) -> list[Problem]:
    """One tick, one dispatch; none lost."""
    return [Problem(*said) for said in ticking.broken(evidence.ticked)]


def pruned(evidence: Evidence) -> list[Problem]:
    """Nothing that is open is ever removed, nothing in part, nothing before its time."""
    return [Problem(*said) for said in evidence.misplaced]


def of_others(evidence: Evidence) -> list[Problem]:
    """See others.py."""
    return [Problem(*said) for one in others.CHECKS for said in one(evidence)]


# -- dispatches ----------------------------------------------------------------------------------------------------------


def acknowledged(evidence: Evidence) -> list[Problem]:
    """I10: what was acknowledged is there and has ended."""
    problems = []
    for line in journal.of(evidence.lines, "ack"):
        id = UUID(line.about["id"])
        job = evidence.jobs.get(id)
        if job is None:
            problems.append(Problem("I10 lost", f"acknowledged and not stored: {line}", id))
        elif job["outcome"] is None and not (job["type"] == "debounced" and job["gone_at"] is not None):
            problems.append(Problem("I10 stuck", f"has not ended: {dict(job)}", id))
    return problems


def once(evidence: Evidence) -> list[Problem]:
    """I11: what was wanted once is there once at most, whether it was acknowledged or not."""
    problems = []
    for line in journal.of(evidence.lines, "intent"):
        found = evidence.ids(stored_as(line.about["kind"]), line.about["number"])
        if len(found) > 1:
            problems.append(Problem("I11 twice", f"dispatched once, stored as {found}: {line}", found[0]))
    for line in journal.of(evidence.lines, "keyed"):
        if len(set(line.about["ids"])) > 1:
            problems.append(Problem("I11 keys", f"one key, several jobs: {line}", UUID(line.about["ids"][0])))
    return problems


def stored_as(kind: str) -> str:
    """The type of the job that a kind becomes."""
    return "relay" if kind in ("single", "delayed", "keyed", "bought", "long") else kind


def purchases(evidence: Evidence) -> list[Problem]:
    """I11: what was dispatched in a transaction is there if and only if the rest of the transaction is."""
    problems = []
    for line in journal.of(evidence.lines, "intent"):
        number = line.about["number"]
        if line.about["kind"] == "bought":
            found = evidence.ids("relay", number)
            if bool(found) != (number in evidence.orders):
                problems.append(Problem("I11 transaction", f"order {number} and its job {found} part", None))
            if found and number % 3 == 0:
                problems.append(Problem("I11 transaction", f"order {number} was rolled back, its job not", found[0]))
    return problems


def followers(evidence: Evidence) -> list[Problem]:
    """What a handler dispatched is there, once, if and only if the handler's job succeeded."""
    counts = Counter(row["by"] for row in evidence.jobs.values() if row["type"] == "follower")
    problems = []
    for id, row in evidence.jobs.items():
        if row["type"] in ("leading", "atomic") and counts[str(id)] != int(row["outcome"] == 1):
            ended = OUTCOMES[row["outcome"]]
            problems.append(
                Problem("I11 outbox", f"{row['type']} {id} {ended} and has {counts[str(id)]} followers", id)
            )
    return problems


# -- attempts ------------------------------------------------------------------------------------------------------------


def executions(evidence: Evidence) -> list[Problem]:
    """I13: a job runs again, or twice at once, only where a fault explains it."""
    problems = []
    for job, found in evidence.by_job.items():
        row = evidence.jobs.get(UUID(job))
        by_hand = row is not None and (row["id"] in evidence.audited or row["root_id"] in evidence.audited)
        for earlier, later in zip(found, found[1:], strict=False):
            overlap = later.start < earlier.end
            again = earlier.about.get("how") == "returned"
            explained = evidence.touched(earlier.pid, earlier.start, later.start)
            if overlap:
                # Two at once: the first one's worker must have been given up, and the first attempt say so.
                explained &= (UUID(job), earlier.number) in evidence.lost
            if (overlap or again) and not explained and not by_hand:
                what = "runs twice at once" if overlap else "ran well and runs again"
                problems.append(Problem("I13 overlap", f"{what}: {earlier} and {later}", UUID(job)))
    return problems


def known(evidence: Evidence) -> list[Problem]:
    """Nothing runs that is not stored; and nothing succeeded that never ran."""
    problems = [
        Problem("I1 unknown", f"ran and is not stored: {found[0]}", UUID(job))
        for job, found in evidence.by_job.items()
        if UUID(job) not in evidence.jobs
    ]
    for id, row in evidence.jobs.items():
        if (
            row["kind"] == 0
            and row["type"] not in ("compute", "failing.on_failure")  # these write another journal
            and row["outcome"] == 1
            and id not in evidence.audited
            and row["root_id"] not in evidence.audited
        ):
            if row["attempt"] not in {a.number for a in evidence.by_job.get(str(id), ())}:
                problems.append(Problem("I8 unfounded", f"succeeded in an attempt that never ran: {dict(row)}", id))
    return problems


def not_early(evidence: Evidence) -> list[Problem]:
    """I20: a delay is over before its job runs."""
    problems = []
    for line in journal.of(evidence.lines, "intent"):
        if line.about["kind"] == "delayed":
            for id in evidence.ids("relay", line.about["number"]):
                starts = [a.start for a in evidence.by_job.get(str(id), ())]
                wait = flows.delay(line.about["number"])
                # By the database's clock, which the kernel may adjust by a little against the monotonic one.
                if starts and min(starts) < line.at + wait - 0.005:
                    problems.append(Problem("I20 early", f"ran {min(starts) - line.at:.3f} s after {line}", id))
    return problems


def limits(evidence: Evidence) -> list[Problem]:
    """I22: of a key no more run at once than it allows. What was given up with its worker may still run on."""
    problems = []
    spans: dict[str, list[tuple[float, int, Attempt]]] = defaultdict(list)
    for attempt in evidence.attempts:
        if attempt.about.get("type") == "narrow" and (UUID(attempt.job), attempt.number) not in evidence.lost:
            row = evidence.jobs.get(UUID(attempt.job))
            # An attempt that another of the same job follows was taken from its worker in some way.
            if row is not None and attempt.number == row["attempt"] and attempt.end < float("inf"):
                key = flows.single_key(attempt.about["number"])
                spans[key] += [(attempt.start, 1, attempt), (attempt.end, -1, attempt)]
    for key, changes in spans.items():
        running = 0
        for at, change, attempt in sorted(changes, key=lambda one: (one[0], one[1])):
            running += change
            if running > flows.LIMITS[key] and not evidence.touched(attempt.pid, at - AROUND, at):
                problems.append(Problem("I22 limit", f"{running} of {key!r} at once: {attempt}", UUID(attempt.job)))
    return problems


def cancels(evidence: Evidence) -> list[Problem]:
    """I23: what was cancelled ends so, and its handler hears of it soon, unless a fault is in the way."""
    problems = []
    for line in journal.of(evidence.lines, "cancelled"):
        id = UUID(line.about["id"])
        row = evidence.jobs.get(id)
        if row is not None and row["outcome"] != 3:
            problems.append(Problem("I23 cancel", f"{OUTCOMES[row['outcome']]}, though cancelled: {dict(row)}", id))
        for attempt in evidence.by_job.get(str(id), ()):
            late = attempt.end - max(line.at, attempt.start)
            heard = max(line.at, attempt.start) + AROUND
            if late > AROUND and not evidence.touched(attempt.pid, attempt.start, heard):
                problems.append(Problem("I23 unheard", f"ran on for {late:.1f} s: {attempt}", id))
    return problems


def steps(evidence: Evidence) -> list[Problem]:
    """A step's value is remembered once and for all."""
    values: dict[str, set[str]] = defaultdict(set)
    for line in journal.of(evidence.lines, "remembered"):
        values[line.about["job"]].add(line.about["value"])
    return [
        Problem("steps", f"one step, {len(found)} values", UUID(job)) for job, found in values.items() if len(found) > 1
    ]


def effects(evidence: Evidence) -> list[Problem]:
    """What a handler wrote in its job's transaction is there once, if and only if the job succeeded by it."""
    rows: dict[UUID, list[int]] = defaultdict(list)
    for job, attempt in evidence.effects:
        rows[job].append(attempt)
    return [
        Problem("I8 effects", f"wrote {rows[id]} and {OUTCOMES[row['outcome']]} in attempt {row['attempt']}", id)
        for id, row in evidence.jobs.items()
        if row["type"] == "atomic" and rows[id] != ([row["attempt"]] if row["outcome"] == 1 else [])
    ]


def frozen(evidence: Evidence) -> list[Problem]:
    """I18: an outcome never changes, unless by an operator."""
    problems = []
    for id, before in evidence.frozen.items():
        row = evidence.jobs.get(id)
        now = None if row is None else (row["outcome"], row["attempt"], row["token"], row["finished_at"])
        root = None if row is None else row["root_id"] or row["id"]
        if now != before and id not in evidence.audited and root not in evidence.audited:
            problems.append(Problem("I18 changed", f"was {before}, is {now}", id))
    return problems


# -- flows ---------------------------------------------------------------------------------------------------------------


def relays(evidence: Evidence) -> list[Problem]:
    """I1, I11, I19: all nodes are there and succeeded, each after its parents and with what these returned."""
    problems = []
    for id, flow in evidence.flows.items():
        if not flow["name"].startswith("relay "):
            continue
        written = flows.relay(int(flow["name"].split(" ")[1]))
        nodes = {row["name"]: row for row in evidence.members[id]}
        if nodes.keys() != {f"n{n}" for n in range(len(written))}:
            problems.append(Problem("I11 partial", f"{len(nodes)} nodes of {len(written)}", id))
            continue
        for n, parents in enumerate(written.after):
            node = nodes[f"n{n}"]
            if node["outcome"] != 1:
                problems.append(Problem("relay", f"n{n} {OUTCOMES[node['outcome']]}: {node['error']}", node["id"]))
                continue
            problems += _given(evidence, node, [nodes[f"n{p}"] for p in parents])
            problems += _after(evidence, node, [nodes[f"n{p}"] for p in [*parents, *written.finished[n]]])
    return problems


def _given(evidence: Evidence, node: asyncpg.Record, parents: list[asyncpg.Record]) -> list[Problem]:
    problems = []
    found = evidence.by_job.get(str(node["id"]), [])
    returned = {a.about.get("token") for a in found if a.number == node["attempt"]}
    if node["token"] not in returned:
        problems.append(Problem("I19 result", f"{node['token']} is stored, {returned} were returned", node["id"]))
    tokens = [parent["token"] for parent in parents]
    problems += [
        Problem("I19 given", f"was given {a.about['given']}, its parents have {tokens}", node["id"])
        for a in found
        if a.about["given"] != tokens
    ]
    return problems


def _after(evidence: Evidence, node: asyncpg.Record, parents: list[asyncpg.Record]) -> list[Problem]:
    start = min((a.start for a in evidence.by_job.get(str(node["id"]), ())), default=float("inf"))
    problems = []
    for parent in parents:
        ends = [a.end for a in evidence.by_job.get(str(parent["id"]), ()) if a.about.get("token") == parent["token"]]
        if not ends or min(ends) > start:
            problems.append(
                Problem("I1 order", f"began at {start}, its parent {parent['name']} ended at {ends}", node["id"])
            )
    return problems


def varied_flows(evidence: Evidence) -> list[Problem]:
    """I16, I17: each flow came to what the reference says, node by node."""
    ran: dict[int, set[tuple[str, str]]] = defaultdict(set)
    undo: dict[int, dict[str, list[Attempt]]] = defaultdict(lambda: defaultdict(list))
    for attempt in evidence.attempts:
        if attempt.about.get("type") == "varied-act":
            ran[attempt.about["number"]].add((attempt.about["part"], attempt.about.get("how", "")))
        elif attempt.about.get("type") == "varied-undo":
            undo[attempt.about["number"]][attempt.about["part"]].append(attempt)
    problems = []
    for id, flow in evidence.flows.items():
        if flow["name"].startswith("flow "):
            number = int(flow["name"].split(" ")[1])
            problems += [Problem("I16 reference", said, id) for said in _one_varied(evidence, id, number, ran[number])]
            problems += [Problem("undoing", said, id) for said in _undone(evidence, id, number, undo[number])]
    return problems


def _lives(evidence: Evidence, id: UUID, number: int) -> tuple[varied.Varied, varied.Life, bool]:
    written = flows.varied(number)
    life = expect(written)
    retried = "retry" in evidence.verbs.get(id, ())
    return written, expect_again(written, life) if retried else life, retried


def _one_varied(evidence: Evidence, id: UUID, number: int, ran: set[tuple[str, str]]) -> list[str]:
    written, life, retried = _lives(evidence, id, number)
    inner = {name for name, step in varied.walk(written.steps) if step.kind == "flow"}
    nodes = {row["name"]: row for row in evidence.members[id]}
    said = []
    for name in life.states.keys() - inner:
        found = OUTCOMES[nodes[name]["outcome"]] if name in nodes else "not there"
        if found != life.states[name]:
            why = nodes[name]["error"] if name in nodes else None
            said.append(f"{name} is {found}, not {life.states[name]}: {why}")
    state = evidence.flows[id]["state"]
    if state != life.state:
        said.append(f"the flow {state}, not {life.state}")
    told = {part for part, how in ran if part in ("success", "failure", "finish") and how == "returned"}
    wanted = {"finish", "success" if life.state == "succeeded" else "failure"}
    if not wanted <= told <= wanted | ({"failure"} if retried else set()):
        said.append(f"its callbacks {sorted(told)} ran; it {life.state}")
    return said


def _undone(evidence: Evidence, id: UUID, number: int, undo: dict[str, list[Attempt]]) -> list[str]:
    written, life, _ = _lives(evidence, id, number)
    wanted = undone(written, life)
    ends = {
        name: min(well)
        for name, found in undo.items()
        if (well := [a.end for a in found if a.about.get("how") == "returned"])
    }
    if sorted(ends) != sorted(wanted):
        return [f"{sorted(ends)} was undone, not {sorted(wanted)}"]
    return [
        f"{before} was being undone before {name} was"
        for name in wanted
        for before in wanted
        if before in life.ancestors[name] and min(a.start for a in undo[before]) < ends[name]
    ]


def wild_flows(evidence: Evidence) -> list[Problem]:
    """The callbacks of a flow run as its end says, whatever was done to it, unless somebody meddled with them."""
    problems = []
    for id, flow in evidence.flows.items():
        if not flow["name"].startswith("wild "):
            continue
        nodes = {row["name"]: row for row in evidence.members[id]}
        wanted = {"finish"} | {"succeeded": {"success"}, "failed": {"failure"}}.get(flow["state"], set())
        for name in wanted:
            row = nodes.get(name)
            if row is None:
                problems.append(Problem("I11 partial", f"{name} is not there", id))
                continue
            by_hand = row["id"] in evidence.verbs or (row["started_at"] is None and row["outcome"] != 4)
            if row["outcome"] != 1 and not by_hand and "operator" not in (row["error"] or ""):
                problems.append(
                    Problem(
                        "callbacks", f"{name} {OUTCOMES[row['outcome']]} ({row['error']}), the flow {flow['state']}", id
                    )
                )
    return problems


def surprises(evidence: Evidence) -> list[Problem]:
    """Programs met nothing they did not expect, and no worker stopped by itself."""
    problems = [Problem("process", str(line)) for line in journal.of(evidence.lines, "unexpected")]
    return problems + [
        Problem("process", f"a worker stopped by itself: {line}")
        for line in journal.of(evidence.lines, "stops")
        if not line.about["asked"]
    ]


CHECKS = [
    acknowledged, once, purchases, followers, executions, known, not_early, limits, cancels, steps, effects, frozen,
    relays, varied_flows, wild_flows, surprises, ticks, pruned, of_others, deadlocked,
]  # fmt: skip


# -- histories -----------------------------------------------------------------------------------------------------------


async def histories(dsn: str, evidence: Evidence, problems: list[Problem], most: int = 5) -> str:
    """All that is known of the first few offenders: rows, journal, faults around."""
    connection = await asyncpg.connect(dsn, server_settings={"statement_timeout": "0"})
    text = []
    seen: set[UUID] = set()
    try:
        for problem in problems:
            row = evidence.jobs.get(problem.id) if problem.id else None
            root = problem.id if row is None else row["root_id"] or row["id"]
            if root is None or root in seen or len(seen) >= most:
                continue
            seen.add(root)
            text.append(f"\n=== {problem}\n{await history(connection, evidence, root)}")
    finally:
        await connection.close()
    return "\n".join(text)


async def history(connection: asyncpg.Connection, evidence: Evidence, root: UUID) -> str:
    """What happened to a flow, or to a job without one."""
    rows = evidence.members.get(root) or [evidence.jobs[root]] if root in evidence.jobs else []
    ids = {row["id"] for row in rows} | {root}
    text = [str(dict(row)) for row in rows]
    for table, column in (("edges", "child_id"), ("attempts", "job_id"), ("audit", "flow_id"), ("blocked", "id")):
        found = await connection.fetch(f"select * from flowrun.{table} where {column} = any($1)", list(ids))
        text += [f"{table}: {json.dumps(dict(row), default=str)}" for row in found]
    wanted = {str(id) for id in ids}
    told = [line for line in evidence.lines if line.about.get("job", line.about.get("id")) in wanted]
    text += map(str, told)
    if told:
        begin, end = told[0].at - AROUND, told[-1].at + AROUND
        text += [str(line) for line in evidence.lines if line.event.startswith("fault") and begin < line.at < end]
    return "\n".join(text)
