"""Between a claim (or a handoff) and the consumers: inputs are fetched, flowrun's own jobs are done on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Attempted, Claimed, Ending, Success
from flowrun.core.references import put_back
from flowrun.core.states import Kind, Outcome
from flowrun.store import claim
from flowrun.worker.session import Session


async def take_in(
    session: Session, connection: Any, jobs: Sequence[Claimed], known: Mapping[UUID, str | None] | None = None
) -> list[Attempted]:
    """Hold the jobs of a lease: handler jobs go to the buffer, and how flowrun's own jobs ended is returned.

    When the connection is lost meanwhile nothing has happened yet: the caller gives the whole lease back.
    ``known`` holds results that this worker has just settled, so that a chain's next step needs no read.
    """
    others = [job for job in jobs if job.sources is not None or job.kind != Kind.HANDLER]
    if not others:
        session.buffer.hold(jobs)
        session.buffer.put(jobs)
        return []
    known = known or {}
    missing = [(job, [source for source in job.sources or () if source not in known]) for job in others]
    wanted = [(job, sources) for job, sources in missing if sources]
    flows = [job.id for job in others if job.kind == Kind.END]
    found = claim.Inputs({}, {})
    if wanted or flows:
        sql = session.client.database.sql
        found = await claim.inputs(connection, sql, worker_id=session.id, wanted=wanted, flows=flows)
    results = found.results
    for job in others:
        job.values = [known[one] if one in known else results.get((job.id, one)) for one in job.sources or ()]
    session.buffer.hold(jobs)
    session.buffer.put([job for job in jobs if job.kind == Kind.HANDLER])
    return [_own(job, found.spoiled.get(job.id)) for job in others if job.kind != Kind.HANDLER]


def _own(job: Claimed, worst: int | None) -> Attempted:
    """The end of a flow, or a join: its outcome follows from its parents'."""
    if worst is not None:
        return Ending(job.id, job.lease, job.attempt, Outcome(worst))
    if job.bindings is None:
        return Success(job.id, job.lease, job.attempt, None)
    arguments = codec.load(job.args)
    put_back(arguments, codec.load(job.bindings), [None if v is None else codec.load(v) for v in job.values or ()])
    return Success(job.id, job.lease, job.attempt, codec.dump(arguments["result"]))
