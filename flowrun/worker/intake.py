"""Between a claim (or a handoff) and the consumers: inputs are fetched, flowrun's own jobs are done on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Attempted, Claimed, Ending, handed_back
from flowrun.core.states import Kind, Outcome
from flowrun.logs import Log
from flowrun.store import claim, parents
from flowrun.store.blame import Fault, fault_of
from flowrun.store.pool import reason
from flowrun.worker import own
from flowrun.worker.session import Session

logger = Log("flowrun.worker")

_LATE = codec.dump({"type": "flowrun.StartedTooLate", "message": "its first attempt did not begin by start_by"})


async def take_in(
    session: Session, connection: Any, jobs: Sequence[Claimed], known: Mapping[UUID, str | None] | None = None
) -> list[Attempted]:
    """Hold the jobs of a lease: handler jobs go to the buffer, and what has ended already is returned.

    When the connection is lost meanwhile nothing has happened yet: the caller gives the whole lease back. A job about
    which something cannot be read fails alone.
    ``known`` holds results that this worker has just settled, so that a chain's next step needs no read.
    """
    try:
        return await _take_in(session, connection, jobs, known)
    except Exception as error:
        if fault_of(error) is not Fault.DATA:
            raise
        if len(jobs) > 1:
            middle = len(jobs) // 2
            ended = await take_in(session, connection, jobs[:middle], known)
            return [*ended, *await take_in(session, connection, jobs[middle:], known)]
        return [_unreadable(session, job, error) for job in jobs]


def _unreadable(session: Session, job: Claimed, error: Exception) -> Ending:
    session.buffer.hold([job])
    why = f"something that it needs cannot be read: {reason(error)}"
    logger.error("job %s (%s) fails: %s", job.id, job.type, why)
    stored = codec.dump({"type": "flowrun.NotReadable", "message": codec.clean_text(why, 1000)})
    return Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=stored)


async def _take_in(
    session: Session, connection: Any, jobs: Sequence[Claimed], known: Mapping[UUID, str | None] | None
) -> list[Attempted]:
    unseen: dict[UUID, set[UUID]] = {}
    if session.job_takers:
        await _introduce(session, connection, jobs, unseen)
    others = [job for job in jobs if job.sources is not None or job.kind != Kind.HANDLER]
    late = await _late(session, connection, jobs)
    facts = await _inputs(session, connection, others, known or {}, unseen) if others else own.Known()
    if unseen:
        # Before any of them begins: each of their attempts is to be given the same.
        await claim.note_unseen(connection, session.client.database.sql, unseen)
    if not others and not late:
        return offer(session, jobs, jobs)
    ended = offer(session, jobs, [job for job in jobs if job.kind == Kind.HANDLER and job.id not in late])
    sealing = session.client.sealing
    ended += [own.do(job, facts, sealing) for job in others if job.kind != Kind.HANDLER]
    ended += [Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=_LATE) for job in jobs if job.id in late]
    return ended


def offer(session: Session, jobs: Sequence[Claimed], runnable: Sequence[Claimed]) -> list[Attempted]:
    """Hold ``jobs``, offer the ``runnable`` of them to the consumers. Those of a queue or a type that was paused
    while the claim was under way are handed back, and all where a job is tried alone since.
    """
    refused: list[Attempted] = []
    if session.trial is not None:
        refused, runnable = [handed_back(job) for job in runnable], []
    if session.paused or session.paused_types:
        refused += [handed_back(job) for job in runnable if session.is_paused(job)]
        runnable = [job for job in runnable if not session.is_paused(job)]
    session.buffer.hold(jobs)
    session.offer(runnable)
    return refused


async def _inputs(
    session: Session,
    connection: Any,
    jobs: Sequence[Claimed],
    known: Mapping[UUID, str | None],
    unseen: dict[UUID, set[UUID]],
) -> own.Known:
    """Fill in the results that ``jobs`` need; what flowrun's own among them need besides."""
    sql = session.client.database.sql
    wanted = {source for job in jobs for source in job.sources or () if source not in known}
    flows = [job.id if job.kind == Kind.END else job.flow_id for job in jobs if job.kind in (Kind.END, Kind.VERDICT)]
    found = claim.Inputs()
    if wanted or flows:
        found = await claim.inputs(connection, sql, wanted=wanted, flows=flows)
    results = {**found.results, **known} if wanted else known
    for job in jobs:
        sources = job.sources or ()
        hidden = not_seen(job) | unseen.get(job.id, set())
        job.values = [None if one in hidden else results.get(one) for one in sources]
        if job.kind == Kind.HANDLER and (fresh := {one for one in sources if one not in results} - hidden):
            unseen.setdefault(job.id, not_seen(job)).update(fresh)
    facts = own.Known(found.spoiled)
    items = [id for job in jobs if job.kind == Kind.MAP and own.is_expanded(job) for id in job.sources or ()]
    if items:
        facts.outcomes = await claim.ended(connection, sql, items)
    undone = [job.id for job in jobs if job.kind == Kind.END and job.options is not None and job.id in found.spoiled]
    if undone:
        facts.compensated = await claim.compensated(connection, sql, undone)
    return facts


async def _introduce(session: Session, connection: Any, jobs: Sequence[Claimed], unseen: dict[UUID, set[UUID]]) -> None:
    """Let the jobs whose handlers take the running job know their parents: a handler in a thread cannot ask later.

    ``unseen`` gets those of their parents that have not ended, where an earlier attempt has not noted that.
    """
    takers = [job for job in jobs if job.type in session.job_takers and job.flow_id is not None]
    if takers:
        hidden = {job.id: not_seen(job) for job in takers}
        found = await parents.parents(connection, session.client.database.sql, hidden)
        for job in takers:
            job.parents = found.get(job.id)
            if job.parents is not None and (fresh := job.parents.open() - hidden[job.id]):
                unseen[job.id] = hidden[job.id] | fresh


def not_seen(job: Claimed) -> set[UUID]:
    """The parents that had not ended when the job's first attempt began: no attempt is told what became of them."""
    if job.options is None or '"unseen"' not in job.options:
        return set()
    return {UUID(id) for id in codec.load(job.options).get("unseen", ())}


async def _late(session: Session, connection: Any, jobs: Sequence[Claimed]) -> set[UUID]:
    """Those that should have started before now."""
    bound = [job.id for job in jobs if job.attempt == 1 and job.options is not None and '"start_by"' in job.options]
    return await claim.late(connection, session.client.database.sql, bound) if bound else set()
