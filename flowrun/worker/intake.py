"""Between a claim (or a handoff) and the consumers: inputs are fetched, flowrun's own jobs are done on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Attempted, Claimed, Ending, handed_back
from flowrun.core.lanes import queue_of
from flowrun.core.states import Kind, Outcome
from flowrun.store import claim, parents
from flowrun.worker import own
from flowrun.worker.session import Session

_LATE = codec.dump({"type": "flowrun.StartedTooLate", "message": "its first attempt did not begin by start_by"})


async def take_in(
    session: Session, connection: Any, jobs: Sequence[Claimed], known: Mapping[UUID, str | None] | None = None
) -> list[Attempted]:
    """Hold the jobs of a lease: handler jobs go to the buffer, and what has ended already is returned.

    When the connection is lost meanwhile nothing has happened yet: the caller gives the whole lease back.
    ``known`` holds results that this worker has just settled, so that a chain's next step needs no read.
    """
    if session.job_takers:
        await _introduce(session, connection, jobs)
    others = [job for job in jobs if job.sources is not None or job.kind != Kind.HANDLER]
    late = await _late(session, connection, jobs)
    if not others and not late:
        return offer(session, jobs, jobs)
    facts = await _inputs(session, connection, others, known or {})
    ended = offer(session, jobs, [job for job in jobs if job.kind == Kind.HANDLER and job.id not in late])
    sealing = session.client.sealing
    ended += [own.do(job, facts, sealing) for job in others if job.kind != Kind.HANDLER]
    ended += [Ending(job.id, job.lease, job.attempt, Outcome.FAILED, error=_LATE) for job in jobs if job.id in late]
    return ended


def offer(session: Session, jobs: Sequence[Claimed], runnable: Sequence[Claimed]) -> list[Attempted]:
    """Hold ``jobs``, offer the ``runnable`` of them to the consumers. Those of a queue that was paused while the claim
    was under way are handed back.
    """
    refused: list[Attempted] = []
    if session.paused:
        refused = [handed_back(job) for job in runnable if queue_of(job.queue) in session.paused]
        runnable = [job for job in runnable if queue_of(job.queue) not in session.paused]
    session.buffer.hold(jobs)
    session.offer(runnable)
    return refused


async def _inputs(
    session: Session, connection: Any, jobs: Sequence[Claimed], known: Mapping[UUID, str | None]
) -> own.Known:
    """Fill in the results that ``jobs`` need; what flowrun's own among them need besides."""
    sql = session.client.database.sql
    missing = [(job, [source for source in job.sources or () if source not in known]) for job in jobs]
    wanted = [(job, sources) for job, sources in missing if sources]
    flows = [job.id if job.kind == Kind.END else job.flow_id for job in jobs if job.kind in (Kind.END, Kind.VERDICT)]
    found = claim.Inputs({}, {})
    if wanted or flows:
        found = await claim.inputs(connection, sql, worker_id=session.id, wanted=wanted, flows=flows)
    results = found.results
    for job in jobs:
        job.values = [known[one] if one in known else results.get((job.id, one)) for one in job.sources or ()]
    facts = own.Known(found.spoiled)
    items = [id for job in jobs if job.kind == Kind.MAP and own.is_expanded(job) for id in job.sources or ()]
    if items:
        facts.outcomes = await claim.ended(connection, sql, items)
    undone = [job.id for job in jobs if job.kind == Kind.END and job.options is not None and job.id in found.spoiled]
    if undone:
        facts.compensated = await claim.compensated(connection, sql, undone)
    return facts


async def _introduce(session: Session, connection: Any, jobs: Sequence[Claimed]) -> None:
    """Let the jobs whose handlers take the running job know their parents: a handler in a thread cannot ask later."""
    takers = [job for job in jobs if job.type in session.job_takers and job.flow_id is not None]
    if takers:
        found = await parents.parents(connection, session.client.database.sql, worker_id=session.id, jobs=takers)
        for job in takers:
            job.parents = found.get(job.id)


async def _late(session: Session, connection: Any, jobs: Sequence[Claimed]) -> set[UUID]:
    """Those that should have started before now."""
    bound = [job.id for job in jobs if job.attempt == 1 and job.options is not None and '"start_by"' in job.options]
    return await claim.late(connection, session.client.database.sql, bound) if bound else set()
