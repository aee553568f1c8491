"""Running a part of a flow again: which jobs are undone, and what each of them waits for then.

Finished work is kept. What failed or was cancelled is undone, and so is what was skipped because of it, and those of
flowrun's own jobs (ends, joins) that had an opinion about it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from flowrun.core.cascade import Counters, Edge, Ended, Skip, decide, through
from flowrun.core.states import Condition, Kind, Outcome, satisfies

Id = TypeVar("Id", bound=Hashable)


class Stored(NamedTuple, Generic[Id]):
    """A job of the flow."""

    kind: Kind
    flow_id: Id | None
    outcome: Outcome | None
    """None: it has not ended."""
    optional: bool
    spoils: bool
    """Its end keeps its flow from succeeding."""
    need: int | None
    """How many of its edges must be satisfied; None: all."""
    waiting: Counters | None
    """Its counters, while it waits."""
    closes: Id | None = None
    """What its flow's end is: the job that waits for all of the flow."""
    lost: bool = False
    """It was asked to stop because it lost a race, and has not ended. (Of a flow, this is said of its end.)"""
    stopping: bool = False
    """It was asked to stop for another reason, and has not ended."""
    undoes: bool = False
    """It is a compensation."""
    ran: bool = False
    """It has had an attempt."""


_TRIED = (None, Outcome.SUCCEEDED, Outcome.FAILED)
"""Outcomes of compensations that are on their way, once the verdict is that the flow is undone, or have run."""


@dataclass(slots=True)
class Again(Generic[Id]):
    """What is to be written."""

    undone: set[Id] = field(default_factory=set)
    blocked: dict[Id, Counters] = field(default_factory=dict)
    """New counters: of undone jobs that wait, and of jobs that were waiting for some of them already."""
    released: list[Id] = field(default_factory=list)
    """Undone jobs that wait for nothing."""
    skipped: dict[Id, Skip[Id]] = field(default_factory=dict)
    """Those that are skipped again, and those that were waiting and are skipped because of that."""
    freed: list[Id] = field(default_factory=list)
    """Jobs that were waiting, and wait for nothing because others are skipped again."""


def failed(jobs: Mapping[Id, Stored[Id]], flow: Id) -> set[Id]:
    """The jobs that a retry of ``flow`` runs again: those that keep it from succeeding.

    Not what is optional, nor what lost a race; nor what is in a flow inside that is so.
    """
    matters: dict[Id | None, bool] = {flow: True}

    def matter(inside: Id | None) -> bool:
        if inside not in matters:
            end = None if inside is None else jobs.get(inside)
            counts = end is not None and (not end.optional and not end.lost if end.outcome is None else end.spoils)
            matters[inside] = counts and end is not None and matter(end.flow_id)
        return matters[inside]

    def runs(job: Stored[Id]) -> bool:
        if job.kind is Kind.END:  # cancelled before it had begun, with what is in it, if anything is
            return job.outcome is Outcome.CANCELLED
        return job.kind not in (Kind.JOIN, Kind.VERDICT)

    return {id for id, job in jobs.items() if job.spoils and runs(job) and matter(job.flow_id)}


def being_undone(jobs: Mapping[Id, Stored[Id]]) -> bool:
    """Whether compensations run, or have run: what they undo cannot be taken up again."""
    if not any(job.kind is Kind.VERDICT and job.outcome is Outcome.FAILED for job in jobs.values()):
        return False
    return any(job.undoes and (job.outcome in _TRIED or job.ran) for job in jobs.values())


def not_undoing(jobs: Mapping[Id, Stored[Id]]) -> set[Id]:
    """The compensations that a cancellation left out: if the flow goes on, they may be needed again."""
    return {id for id, job in jobs.items() if job.undoes and job.outcome is Outcome.CANCELLED and not job.ran}


def around(jobs: Mapping[Id, Stored[Id]], inside: Iterable[Id]) -> set[Id]:
    """The flows that some jobs are in, by the ids of their ends."""
    flows: set[Id] = set()
    for id in inside:
        above = jobs[id].flow_id
        while above is not None and above not in flows:
            flows.add(above)
            above = jobs[above].flow_id if above in jobs else None
    return flows


def undo(jobs: Mapping[Id, Stored[Id]], edges: Sequence[Edge[Id]], first: Collection[Id]) -> set[Id]:
    """``first``, and all that must be decided again when they are.

    Of flowrun's own jobs also those that are released and have not ended: they are about to say what is no more so.

    What was skipped, and will be again for a reason that stays (more of its edges are needed than can be satisfied), is
    told why; nothing follows from it, so a flow inside that has succeeded is not asked again. What it has to spare is
    counted once from its edges and then kept: counted anew for each of its parents, a child of 25,000 took an hour.
    """
    children: dict[Id, list[Edge[Id]]] = {}
    parents: dict[Id, list[Edge[Id]]] = {}
    for edge in edges:
        children.setdefault(edge.parent, []).append(edge)
        parents.setdefault(edge.child, []).append(edge)
    undone = set[Id]()
    still = set[Id]()
    spare: dict[Id, int] = {}
    stack = list(first)
    while stack:
        id = stack.pop()
        if id in undone:
            continue
        undone.add(id)
        stack += [edge.parent for edge in parents.get(id, ()) if _goes_along(jobs[edge.parent], jobs[id])]
        behind = [edge for edge in children.get(id, ()) if edge.child in jobs]
        for edge in behind:
            if edge.child in spare and _is_against(jobs[id], edge):
                spare[edge.child] += 1
        for edge in behind:
            job = jobs[edge.child]
            if edge.child in undone or job.waiting is not None:
                continue
            if job.outcome is Outcome.SKIPPED:
                if edge.child not in spare:
                    counters = _counters(jobs, parents[edge.child], job.need, undone)
                    spare[edge.child] = counters.open - counters.need
                if spare[edge.child] < 0:
                    still.add(edge.child)
                else:
                    stack.append(edge.child)
            elif _speaks_again(job, edge):
                stack.append(edge.child)
    return undone | still


def _goes_along(parent: Stored[Id], child: Stored[Id]) -> bool:
    """Whether a parent runs again because ``child`` does: the cancelled item of a map, which was cancelled because a
    sibling of it failed, or with the map; and a join that was cancelled with the flow it belongs to."""
    return parent.outcome is Outcome.CANCELLED and (child.kind is Kind.MAP or parent.kind is Kind.JOIN)


def _is_against(parent: Stored[Id], edge: Edge[Id]) -> bool:
    """Whether the edge of a parent that is undone was decided, and not as its child needs it: it is open again."""
    return parent.outcome is not None and not _satisfied(parent, edge)


def _speaks_again(job: Stored[Id], edge: Edge[Id]) -> bool:
    """Whether one of flowrun's own, or a map that has not succeeded, is to say anew what the parent of ``edge`` made of
    it."""
    if job.kind is Kind.END and job.outcome is not None and edge.condition is not Condition.FINISHED:
        return False  # the flow has begun and ended: only what is in it says how it went
    undecided = job.kind is Kind.MAP and job.outcome in (None, Outcome.FAILED)
    return undecided or job.kind in (Kind.END, Kind.JOIN, Kind.VERDICT)


def again(
    jobs: Mapping[Id, Stored[Id]], edges: list[Edge[Id]], undone: set[Id], held: Collection[Id] = ()
) -> Again[Id]:
    """What becomes of the ``undone`` jobs. Those ``held`` are decided by the caller, not released here.

    ``edges`` hold one to the end of its flow for every job that is undone.

    The join that an inner flow begins with stays cancelled where it would only be skipped: a flow that was cancelled
    may be running its cleanup nodes, and its end waits for them.
    """
    kept = set[Id]()
    while True:
        plan = _again(jobs, edges, undone - kept, held)
        more = {id for id in plan.skipped if id in plan.undone and _is_cancelled_join(jobs[id])}
        if not more:
            return plan
        kept |= more


def _is_cancelled_join(job: Stored[Id]) -> bool:
    return job.kind is Kind.JOIN and job.outcome is Outcome.CANCELLED


def _again(jobs: Mapping[Id, Stored[Id]], edges: list[Edge[Id]], undone: set[Id], held: Collection[Id]) -> Again[Id]:
    plan: Again[Id] = Again(set(undone))
    parents: dict[Id, list[Edge[Id]]] = {}
    for edge in edges:
        parents.setdefault(edge.child, []).append(edge)
    skipped: dict[Id, Ended] = {}
    for id in undone:
        counters = _counters(jobs, parents.get(id, []), jobs[id].need, undone)
        if id in held:
            continue
        if counters.need <= 0:
            plan.released.append(id)
        elif counters.open < counters.need:
            skipped[id] = Ended(Outcome.SKIPPED)
        else:
            plan.blocked[id] = counters
    for id, job in jobs.items():
        if job.outcome is None and job.waiting is not None and id not in undone:
            lost = [edge for edge in parents.get(id, []) if edge.parent in undone]
            if lost:
                back = sum(_satisfied(jobs[edge.parent], edge) for edge in lost)
                decided = sum(jobs[edge.parent].outcome is not None for edge in lost)
                plan.blocked[id] = Counters(job.waiting.need + back, job.waiting.open + decided)
    further = decide(skipped, edges, plan.blocked)
    for id in further.released:
        (plan.released if id in undone else plan.freed).append(id)
    plan.skipped = further.skipped
    for id in skipped:
        unmet = [e for e in parents[id] if e.parent not in undone and not _satisfied(jobs[e.parent], e)]
        plan.skipped[id] = _skip(jobs, (unmet or parents[id])[0])
    plan.skipped = through(plan.skipped, {id for id in plan.skipped if jobs[id].kind is Kind.JOIN})
    plan.blocked |= further.waiting
    for id in (*further.released, *further.skipped):
        plan.blocked.pop(id, None)
    return plan


def _counters(
    jobs: Mapping[Id, Stored[Id]], edges: Sequence[Edge[Id]], need: int | None, undone: Collection[Id]
) -> Counters:
    total = len(edges) if need is None else need
    met = still = 0
    for edge in edges:
        parent = jobs[edge.parent]
        if edge.parent in undone or parent.outcome is None:
            still += 1
        else:
            met += _satisfied(parent, edge)
    return Counters(total - met, still)


def _satisfied(parent: Stored[Id], edge: Edge[Id]) -> bool:
    return (
        parent.outcome is not None
        and edge.passed
        and satisfies(parent.outcome, edge.condition, optional=parent.optional)
    )


def _skip(jobs: Mapping[Id, Stored[Id]], edge: Edge[Id]) -> Skip[Id]:
    return Skip(edge.parent, edge.condition, jobs[edge.parent].outcome or Outcome.SKIPPED)
