"""What people do to jobs and flows: cancel, retry, resolve, skip, signal, add. Each in one transaction, with a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import UUID

from flowrun import codec, mint
from flowrun.core.again import Again, Stored, again, around, being_undone, failed, not_undoing, undo
from flowrun.core.cascade import Counters, Edge
from flowrun.core.growth import Growth
from flowrun.core.states import Condition, Kind, Outcome
from flowrun.errors import InvalidArguments, NotFound, NotPossible
from flowrun.sealing import Sealing, attempts, rows
from flowrun.store import bulk, edits, gates, grow, stop
from flowrun.store.bulk import By
from flowrun.store.edits import Edit
from flowrun.store.finish import Final, Settled, cancel, finish, follow, hold_to_cancel, skip, whole
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

Cancelled: TypeAlias = Literal["cancelled", "requested", "too late"]


@dataclass(slots=True)
class _Graph:
    """A whole flow, as it stands."""

    root: UUID
    rows: dict[UUID, Any] = field(default_factory=dict)
    jobs: dict[UUID, Stored[UUID]] = field(default_factory=dict)
    edges: list[Edge[UUID]] = field(default_factory=list)


async def cancel_job(
    connection: Connection, sql: Statements, id: UUID, by: By, settled: Settled, *, compensate: bool = True
) -> Cancelled:
    """Cancel a job, or a flow (by its id) with all that is in it."""

    async def work() -> Cancelled:
        root = await lock(connection, sql, id)
        found = await connection.fetchrow(sql["kind_of"], id)
        if found is None:
            raise NotFound(f"no job or flow {id} is stored")
        kind, _, ended, _ = found
        if ended:
            return "too late"
        also = [] if root in (None, id) else await open_parents(connection, sql, root, [id])
        await hold_to_cancel(connection, sql, [id], settled, also)
        await keep_open(connection, sql, also, settled)
        before = len(settled.interrupt)
        ends = await cancel(connection, sql, [id], settled, reason=by.reason, actor=by.actor)
        met = bool(ends) or len(settled.interrupt) > before
        if kind == Kind.END and not compensate and (met or await connection.fetchval(sql["is_spoiled"], id)):
            undoing = [row[0] for row in await connection.fetch(sql["compensations"], id)]
            ends |= await cancel(connection, sql, undoing, settled, reason="not to be compensated", harmless=True)
        asked = len(settled.interrupt) > before
        if not (ends or asked):
            # All of it has ended, and decides how the flow ends, which is about to.
            return "too late"
        await follow(connection, sql, ends, settled)
        await note(connection, sql, root, id, "cancel", by)
        return "requested" if asked else "cancelled"

    return await whole(connection, settled, work)


async def signal(
    connection: Connection,
    sql: Statements,
    flow: UUID,
    name: str,
    value: Any,
    by: By,
    settled: Settled,
    sealing: Sealing,
) -> bool:
    """Send a signal to a flow; False if one of that name came before."""

    async def work() -> bool:
        root = await _lock_flow(connection, sql, flow)
        known = {row[0]: row for row in await connection.fetch(sql["flow_gates"], root)}
        if name not in known:
            there = f"its gates wait for {', '.join(map(repr, known))}" if known else "it has no gates"
            raise NotFound(f"flow {flow} waits for no signal {name!r}; {there}")
        _, args, gate = known[name]
        answers = rows.opened_args(sealing, Kind.GATE, args, gate).get("answers")
        if answers is not None and value not in answers:
            raise InvalidArguments(f"signal {name!r} takes one of {', '.join(map(repr, answers))}; got {value!r}")
        text = codec.dump(value)
        kept = sealing.json(text, root, attempts.signal_field(name))
        came = await gates.signal(
            connection, sql, root, name, kept, by.actor, settled, lambda gate: sealing.json(text, gate, "result")
        )
        if came:
            await note(connection, sql, root, None, "signal", by, {"signal": name, "value": codec.load(kept)})
        return came

    return await whole(connection, settled, work)


async def add(connection: Connection, sql: Statements, growth: Growth, by: By, settled: Settled) -> dict[UUID, str]:
    """Add nodes to an open flow; their names by id."""

    async def work() -> dict[UUID, str]:
        root = await _lock_flow(connection, sql, growth.flow_id)
        names = await grow.grow(connection, sql, growth, settled)
        shown = [name for name in names.values() if not name.startswith("(")]
        await note(connection, sql, root, None, "add", by, {"nodes": shown})
        return names

    return await whole(connection, settled, work)


async def retry(
    connection: Connection, sql: Statements, flow: UUID, args: Mapping[UUID, Edit], by: By, settled: Settled
) -> int:
    """Run the failed jobs of a flow again, and what was skipped because of them; how many jobs run again.

    A cancellation is over with it: what was asked to stop and has not stopped yet runs again when it has.
    """

    async def work() -> int:
        root = await _lock_flow(connection, sql, flow)
        graph = await _load(connection, sql, root)
        inside = graph.jobs if flow == root else _below(graph, flow)
        first = failed(inside, flow)
        stopping = {id for id, job in inside.items() if job.stopping and job.kind is not Kind.END}
        if not first and not stopping and graph.jobs[flow].outcome in (Outcome.FAILED, Outcome.CANCELLED):
            first = {flow}  # nothing that is in it says so: it is asked once more how it went
        if not first and not stopping:
            return 0
        stopping = await _run_again(connection, sql, graph, first, settled, args, stopping=stopping)
        await note(connection, sql, root, None if flow == root else flow, "retry", by)
        return sum(graph.jobs[id].kind is not Kind.END for id in first) + len(stopping)

    return await whole(connection, settled, work)


async def retry_job(
    connection: Connection, sql: Statements, id: UUID, args: Edit | None, by: By, settled: Settled
) -> None:
    """Run one job again that failed or was cancelled. Raises NotPossible for any other."""

    async def work() -> None:
        root = await lock(connection, sql, id)
        if root is None:
            if not await bulk.undo_singles(connection, sql, [id], args, settled):
                raise await _nothing_to_retry(connection, sql, id)
        else:
            graph = await _load(connection, sql, root)
            if id not in graph.jobs or graph.jobs[id].outcome not in (Outcome.FAILED, Outcome.CANCELLED):
                raise await _nothing_to_retry(connection, sql, id)
            await _run_again(connection, sql, graph, {id}, settled, {id: args} if args is not None else {})
        await note(connection, sql, root, id, "retry", by)

    await whole(connection, settled, work)


async def retry_nodes(
    connection: Connection,
    sql: Statements,
    root: UUID,
    ids: Sequence[UUID],
    args: Edit | None,
    by: By,
    settled: Settled,
) -> list[UUID]:
    """Run jobs of one flow again; those that had failed or were cancelled, and do. Raises as :func:`retry_job`."""

    async def work() -> list[UUID]:
        await _lock_flow(connection, sql, root)
        graph = await _load(connection, sql, root)
        again = {Outcome.FAILED, Outcome.CANCELLED}
        first = [id for id in ids if id in graph.jobs and graph.jobs[id].outcome in again]
        if first:
            edited = {} if args is None else dict.fromkeys(first, args)
            await _run_again(connection, sql, graph, set(first), settled, edited)
            await bulk.note_all(connection, sql, root, first, "retry", by)
        return first

    return await whole(connection, settled, work)


async def cancel_nodes(
    connection: Connection,
    sql: Statements,
    root: UUID,
    ids: Sequence[UUID],
    by: By,
    settled: Settled,
    among: Sequence[UUID] | None = None,
) -> list[UUID]:
    """Cancel jobs of one flow; those that were cancelled or asked to stop.

    ``among``: what they wait for, where that was read before: see :func:`~flowrun.store.bulk.parents_in_steps`.
    """

    async def work() -> list[UUID]:
        await _lock_flow(connection, sql, root)
        if among is None:
            parents = await open_parents(connection, sql, root, ids)
        else:
            parents = [row[0] for row in await connection.fetch(sql["unfinished"], among)]
        await hold_to_cancel(connection, sql, ids, settled, parents)
        await keep_open(connection, sql, parents, settled)
        return await bulk.cancel_here(connection, sql, root, ids, by, settled)

    return await whole(connection, settled, work)


async def discard(connection: Connection, sql: Statements, ids: Sequence[UUID], by: By) -> int:
    """Take jobs that failed out of the dead letter; how many were in it."""
    async with connection.transaction(isolation="read_committed"):
        # Flows first, then outcomes, by id: the order of all who do something to jobs that have ended.
        flows = dict(await connection.fetch(sql["flows_of"], ids))
        roots = await grow.lock(connection, sql, set(flows.values())) if flows else {}
        await connection.fetch(sql["hold_ended"], ids)
        rows = [row[0] for row in await connection.fetch(sql["discard"], ids)]
        by_root: dict[UUID | None, list[UUID]] = {}
        for id in rows:
            by_root.setdefault(roots[flows[id]] if id in flows else None, []).append(id)
        for root, discarded in by_root.items():
            await bulk.note_all(connection, sql, root, discarded, "discard", by)
        return len(rows)


async def decide(
    connection: Connection, sql: Statements, id: UUID, outcome: Outcome, result: str | None, by: By, settled: Settled
) -> None:
    """Give a job an outcome by hand, whatever state it is in: succeeded with a result, or skipped.

    What was skipped because it failed is decided again. Raises NotPossible if it has succeeded.
    """
    verb = "resolve" if outcome is Outcome.SUCCEEDED else "skip"
    error = None if outcome is Outcome.SUCCEEDED else stop.words(by.reason, by.actor or "an operator")

    async def work() -> None:
        root = await lock(connection, sql, id)
        if root is None:
            await connection.fetch(sql["hold_ended"], [id])
        found = await connection.fetchrow(sql["kind_of"], id)
        if found is None:
            raise NotFound(f"no job {id} is stored")
        if found[2] == Outcome.SUCCEEDED or (found[2] == Outcome.SKIPPED and outcome is Outcome.SKIPPED):
            raise NotPossible(f"job {id} has {Outcome(found[2]).name.lower()} already")
        if found[0] not in (Kind.HANDLER, Kind.GATE, Kind.SLEEP, Kind.MAP):
            raise NotPossible(f"{found[1]!r} is a flow: resolve or skip the nodes in it")
        attempt = found[3] or 0
        if found[2] is not None and root is not None:
            graph = await _load(connection, sql, root)
            await _run_again(connection, sql, graph, {id}, settled, {}, held={id})
        elif found[2] is not None:
            await connection.execute(sql["undo"], [id])
        else:
            if root is not None:
                parents = await open_parents(connection, sql, root, [id])
                await hold_to_cancel(connection, sql, [id], settled, parents)
                await keep_open(connection, sql, parents, settled)
            stopped = await stop.find(connection, sql, [id], settled.hold)
            settled.interrupt.extend(stopped.running)
            attempt = stopped.withdrawn.get(id, 1)
        await finish(connection, sql, [Final(id, outcome, attempt, result, error=error)], settled)
        await note(connection, sql, root, id, verb, by)

    await whole(connection, settled, work)


async def note(
    connection: Connection,
    sql: Statements,
    flow: UUID | None,
    job: UUID | None,
    verb: str,
    by: By,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Keep what was done."""
    stored = None if detail is None else codec.dump(detail)
    await connection.execute(sql["audit"], mint.job_id(), flow, job, verb, by.actor, by.reason, stored)


async def _run_again(
    connection: Connection,
    sql: Statements,
    graph: _Graph,
    first: set[UUID],
    settled: Settled,
    args: Mapping[UUID, Edit],
    held: AbstractSet[UUID] = frozenset(),
    stopping: AbstractSet[UUID] = frozenset(),
) -> set[UUID]:
    """Undo ``first`` and what hangs on it, and let it run again, but for what is ``held``.

    The flows around are not cancelled any more, nor are those of ``stopping`` that have not stopped: which these are.
    Raises NotPossible where the flow is being undone, or was.
    """
    # What has not ended is held where it stands; then all is read once more, and stays as it is read. What has ended
    # may be in a lease still, whose worker has not said what it knows of it.
    bad = [id for id, job in graph.jobs.items() if job.outcome is not Outcome.SUCCEEDED]
    await settled.hold.jobs(connection, sql, bad)
    graph = await _load(connection, sql, graph.root)
    if not all(graph.jobs[id].undoes for id in first) or stopping:
        if being_undone(graph.jobs):
            raise NotPossible(
                "what the flow did was compensated, or is being undone: dispatch it again instead (a compensation that "
                "failed can be retried, or resolved, by its name)"
            )
        first = first | not_undoing(graph.jobs)
    stopping = {id for id in stopping if graph.jobs[id].stopping}
    await connection.execute(sql["go_on"], [*around(graph.jobs, first | stopping), *stopping])
    undone = undo(graph.jobs, graph.edges, first)
    closed = [(id, graph.jobs[id].closes) for id in undone if _waited_for(graph, id)]
    for id, end in await connection.fetch(sql["close_after"], [id for id, _ in closed], [end for _, end in closed]):
        waiting = graph.jobs[end].waiting
        if graph.jobs[id].outcome is None and waiting is not None:
            # Of a job that had its outcome, the edge counts when that is taken back.
            graph.jobs[end] = graph.jobs[end]._replace(waiting=Counters(waiting.need + 1, waiting.open + 1))
    graph.edges = await _edges(connection, sql, graph)
    undone = undo(graph.jobs, graph.edges, first)
    recalled = [id for id in undone if graph.jobs[id].outcome is None]
    await connection.fetch(sql["withdraw"], recalled)
    await connection.execute(sql["recall"], list(undone))
    plan = again(graph.jobs, graph.edges, undone, held)
    for id, edit in args.items():
        await edits.edit(connection, sql, [id], edit)
    await _write(connection, sql, plan, settled)
    return stopping


async def _write(connection: Connection, sql: Statements, plan: Again[UUID], settled: Settled) -> None:
    await connection.execute(sql["undo"], list(plan.undone))
    await connection.execute(
        sql["block_again"],
        list(plan.blocked),
        [counters.need for counters in plan.blocked.values()],
        [counters.open for counters in plan.blocked.values()],
    )
    settled.read(await connection.fetch(sql["release_again"], plan.released))
    waited = [id for id in plan.skipped if id not in plan.undone]
    if plan.freed or waited:
        settled.read(await connection.fetch(sql["cascade"], plan.freed, waited, [], [], []))
    await skip(connection, sql, plan.skipped, settled, lambda *_: '{"message":"skipped again, because of {parent}"}')


def _waited_for(graph: _Graph, id: UUID) -> bool:
    """Whether the end of its flow waits for a job of this kind."""
    row = graph.rows[id]
    job = graph.jobs[id]
    return job.closes is not None and not row["callback"] and not row["compensates"] and job.kind is not Kind.VERDICT


def _below(graph: _Graph, flow: UUID) -> dict[UUID, Stored[UUID]]:
    """The jobs of a flow inside, and of those inside it."""
    flows = {flow}
    while True:
        more = {id for id, job in graph.jobs.items() if job.kind is Kind.END and job.flow_id in flows} - flows
        if not more:
            return {id: job for id, job in graph.jobs.items() if job.flow_id in flows}
        flows |= more


async def _nothing_to_retry(connection: Connection, sql: Statements, id: UUID) -> Exception:
    if await connection.fetchrow(sql["kind_of"], id) is None:
        return NotFound(f"no job {id} is stored")
    return NotPossible(f"job {id} has not failed: there is nothing to retry")


async def open_parents(connection: Connection, sql: Statements, root: UUID, ids: Sequence[UUID]) -> list[UUID]:
    """What jobs, or what is in inner flows, wait for and what may go on when they are decided: the end of the flow must
    wait for it."""
    if not await connection.fetch(sql["ends"], ids):
        return [row[0] for row in await connection.fetch(sql["open_parents"], root, ids)]
    graph = await _load(connection, sql, root)
    wanted = set(ids)
    for id in ids:
        if id in graph.jobs and graph.jobs[id].kind is Kind.END:
            # The join it begins with is a node of the flow around, and leads to its end.
            wanted |= _below(graph, id).keys()
            wanted |= {e.parent for e in graph.edges if e.child == id and graph.jobs[e.parent].kind is Kind.JOIN}
    waited = {edge.parent for edge in graph.edges if edge.child in wanted}
    return [id for id in waited if graph.jobs[id].outcome is None and _waited_for(graph, id)]


async def keep_open(connection: Connection, sql: Statements, parents: Sequence[UUID], settled: Settled) -> None:
    """Let the end of the flow wait for those of ``parents``, which are held, that have not ended."""
    if parents:
        still = [row[0] for row in await connection.fetch(sql["unfinished"], parents)]
        await stop.hold_open(connection, sql, still, settled.hold)


async def _load(connection: Connection, sql: Statements, root: UUID) -> _Graph:
    graph = _Graph(root)
    for row in await connection.fetch(sql["flow_graph_jobs"], root):
        waiting = None if row["waiting_need"] is None else Counters(row["waiting_need"], row["waiting_open"])
        outcome = None if row["outcome"] is None else Outcome(row["outcome"])
        graph.rows[row["id"]] = row
        graph.jobs[row["id"]] = Stored(
            Kind(row["kind"]),
            row["flow_id"],
            outcome,
            row["optional"],
            row["spoils"],
            row["need"],
            waiting,
            row["closes"],
            row["harmless"] is True,
            row["harmless"] is False,
            row["compensates"],
            bool(row["attempt"]),
        )
    graph.edges = await _edges(connection, sql, graph)
    return graph


async def _edges(connection: Connection, sql: Statements, graph: _Graph) -> list[Edge[UUID]]:
    found = await connection.fetch(sql["flow_graph_edges"], list(graph.jobs))
    return [
        Edge(parent, child, Condition(condition), passed, rivals or ())
        for parent, child, condition, passed, rivals in found
    ]


async def lock(connection: Connection, sql: Statements, id: UUID) -> UUID | None:
    """Lock the outermost flow of a job (or a flow); None: the job has no flow."""
    flow = await connection.fetchval(sql["flow_of"], id)
    return None if flow is None else await _lock_flow(connection, sql, flow)


async def _lock_flow(connection: Connection, sql: Statements, flow: UUID) -> UUID:
    roots = await grow.lock(connection, sql, [flow])
    if flow not in roots:
        raise NotFound(f"no flow {flow} is stored")
    return roots[flow]
