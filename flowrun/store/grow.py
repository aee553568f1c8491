"""Adding nodes to flows that run. The caller holds the transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from flowrun.core.cascade import Ended
from flowrun.core.growth import Expansion, Growth
from flowrun.core.plan import EdgeRow, JobRow, Plan
from flowrun.core.states import Outcome
from flowrun.errors import InvalidFlow, NotFound
from flowrun.store import insert, stop
from flowrun.store.finish import Settled, cancel, follow
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


async def lock(connection: Connection, sql: Statements, flows: Iterable[UUID]) -> dict[UUID, UUID]:
    """Lock the outermost flows of ``flows``, before anything else is locked; flow to outermost flow."""
    return dict(await connection.fetch(sql["lock_flows"], list(flows)))


async def grow(
    connection: Connection, sql: Statements, growth: Growth, settled: Settled, ending: Collection[UUID] = ()
) -> dict[UUID, str]:
    """Write new nodes; their names as stored. Raises InvalidFlow where that cannot be done.

    The flow is locked. ``ending``: jobs that have their outcome and whose end the caller follows afterwards, the job
    that spawned these among them. Followed here too, their edges to the new nodes would count twice.
    """
    plan = growth.plan
    root = (await lock(connection, sql, [growth.flow_id])).get(growth.flow_id)
    if root is None:
        raise NotFound(f"no flow {growth.flow_id} is stored")
    if await connection.fetchval(sql["outcomes"], [growth.flow_id]) is not None:
        raise InvalidFlow(f"flow {growth.flow_id} has ended: nothing can be added to it")
    rows = await connection.fetch(sql["flow_nodes"], root)
    known: dict[str, UUID] = {name: id for name, id, _, _ in rows}
    _name(growth, known)
    real = _resolve(growth, known)
    after_end = {id: name for name, id, _, after in rows if after}
    if late := after_end.keys() & real.values():
        names = ", ".join(repr(after_end[id]) for id in late)
        raise InvalidFlow(f"{names} runs when the flow has ended: nothing can be added after that")
    plan.edges = [(real.get(parent, parent), child, condition) for parent, child, condition in plan.edges]
    plan.tests = [(real.get(parent, parent), child, number, test) for parent, child, number, test in plan.tests]
    plan.jobs = [
        row if row.parents is None else row._replace(parents=[real.get(id, id) for id in row.parents])
        for row in plan.jobs
    ]
    free = {row.id for row in plan.free}
    plan.free = [row for row in plan.jobs if row.id in free]
    ended = await _pin(connection, sql, {id for id in real.values() if id not in ending})
    if growth.succeeded is not None:
        await connection.execute(sql["move_edges"], growth.spawner, growth.succeeded, growth.finished)
    await insert.insert_nodes(connection, sql, plan, root)
    if growth.succeeded is not None:
        await connection.execute(sql["wait_too"], growth.spawner, growth.succeeded)
    await stop.hold_open(connection, sql, [*growth.loose, *([growth.finished] if growth.finished else ())])
    new = frozenset(row.id for row in plan.jobs)
    await follow(connection, sql, ended, settled, only=new)
    await _release(connection, sql, plan.free, settled)
    await _stop_if_cancelled(connection, sql, [growth.flow_id, root], list(new), settled)
    return {row.id: row.name for row in plan.jobs if row.name is not None}


async def expand(connection: Connection, sql: Statements, expansion: Expansion, settled: Settled) -> None:
    """Write a map's items and let the map wait for them. It has left its lease."""
    roots = await lock(connection, sql, [expansion.flow_id])
    ids = [row.id for row in expansion.items]
    edges: list[EdgeRow] = [(id, expansion.id, 2) for id in ids]
    plan = Plan(jobs=expansion.items, edges=edges, blocked=[(expansion.id, len(ids), len(ids))], free=expansion.items)
    await insert.insert_nodes(connection, sql, plan, roots[expansion.flow_id])
    await connection.execute(sql["expand_map"], expansion.id, expansion.args, ids)
    await _release(connection, sql, plan.free, settled)
    flows = [expansion.flow_id, roots[expansion.flow_id]]
    await _stop_if_cancelled(connection, sql, flows, [expansion.id, *ids], settled)


async def _release(connection: Connection, sql: Statements, free: Sequence[JobRow], settled: Settled) -> None:
    if free:
        await connection.execute(sql["copied_free"], [row.id for row in free])
        plan = Plan(free=list(free))
        settled.queues |= plan.queues()
        settled.scheduled |= plan.scheduled()


async def _stop_if_cancelled(
    connection: Connection, sql: Statements, flows: Sequence[UUID], new: Sequence[UUID], settled: Settled
) -> None:
    """A flow that was cancelled takes in nothing new, but for what is not cancelled with it."""
    requests = await connection.fetch(sql["cancel_requests"], flows)
    if requests:
        stopped = [row[0] for row in await connection.fetch(sql["stoppable"], new)]
        _, reason, actor, harmless, _ = requests[0]
        ended = await cancel(connection, sql, stopped, settled, reason=reason, actor=actor, harmless=harmless)
        await follow(connection, sql, ended, settled)


async def _pin(connection: Connection, sql: Statements, ids: Iterable[UUID]) -> dict[UUID, Ended]:
    """Hold stored nodes where they stand; those that have ended, and how."""
    ids = set(ids)
    await stop.find(connection, sql, ids, withdraw=False)
    rows = await connection.fetch(sql["ended"], list(ids)) if ids else []
    return {id: Ended(Outcome(outcome), optional) for id, outcome, optional in rows}


def _resolve(growth: Growth, known: dict[str, UUID]) -> dict[UUID, UUID]:
    """What stands for stored nodes, to these nodes."""
    real: dict[UUID, UUID] = {}
    for stand_in, name in growth.outside.items():
        if name not in known:
            raise InvalidFlow(f"a new node waits for an unknown node {name!r}; there are {', '.join(known)}")
        real[stand_in] = known[name]
    return real


def _name(growth: Growth, known: dict[str, UUID]) -> None:
    """Names that are free: another number where nobody chose the name, else InvalidFlow."""
    taken = set(known)
    rows = growth.plan.jobs
    for at, row in enumerate(rows):
        if row.name is None or row.name.startswith("("):
            continue
        name, number = row.name, 1
        tail = row.name[row.name.rfind(row.type) + len(row.type) :]
        while name in taken and row.id in growth.unnamed:
            number += 1
            name = f"{row.name.removesuffix(tail)}-{number}"
        if name in taken:
            raise InvalidFlow(f"there is a node named {name!r} in the flow already; give the new one another name=")
        taken.add(name)
        if name != row.name:
            rows[at] = row._replace(name=name)
