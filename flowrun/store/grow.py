"""Adding nodes to flows that run. The caller holds the transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from flowrun import codec, mint
from flowrun.core.attempt import Ending
from flowrun.core.cascade import Ended
from flowrun.core.growth import Asks, Expansion, Growth, Way, add_join, bound, copied, look_at_both
from flowrun.core.plan import EdgeRow, JobRow, Plan
from flowrun.core.states import Condition, Kind, Outcome
from flowrun.errors import InvalidFlow, NotFound
from flowrun.store import insert, stop
from flowrun.store.finish import Final, Settled, cancel, follow, stop_requests
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
    growth = copied(growth)
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
    ways = await _ways(connection, sql, growth, real)
    await _tie(connection, sql, growth, real, ways)
    plan.jobs = [
        row if row.parents is None else row._replace(parents=[real.get(id, id) for id in row.parents])
        for row in plan.jobs
    ]
    free = {row.id for row in plan.free}
    plan.free = [row for row in plan.jobs if row.id in free]
    held = {*real.values(), *(join for way in ways.values() for join in way.joins.values())}
    ended = await _pin(connection, sql, {id for id in held if id not in ending}, settled)
    await insert.insert_nodes(connection, sql, plan, root)
    joins = [row.id for row in plan.jobs if row.kind == Kind.JOIN]
    if not await stop.hold_open(connection, sql, [*growth.loose, *joins], settled.hold):
        raise InvalidFlow(f"all nodes of flow {growth.flow_id} have ended, and it ends: nothing can be added to it")
    new = frozenset(row.id for row in plan.jobs)
    await follow(connection, sql, ended, settled, only=new)
    await _release(connection, sql, plan.free, settled)
    await _stop_if_cancelled(connection, sql, growth.flow_id, list(new), settled)
    return {row.id: row.name for row in plan.jobs if row.name is not None}


async def _ways(connection: Connection, sql: Statements, growth: Growth, real: Mapping[UUID, UUID]) -> dict[UUID, Way]:
    """Of the stored nodes that new ones wait for, those that have spawned: the new ones wait for that too.

    Raises InvalidFlow where a node would wait for what waits for it.
    """
    others = {id for id in real.values() if id != growth.spawner}
    if not others:
        return {}
    ways: dict[UUID, dict[int, UUID]] = {}
    for id, condition, join in await connection.fetch(sql["spawned_joins"], list(others)):
        ways.setdefault(id, {})[condition] = join
    if growth.spawner is None or not growth.tied:
        return {id: Way(id, joins) for id, joins in ways.items()}
    asked = others | {join for joins in ways.values() for join in joins.values()}
    behind = {row[0] for row in await connection.fetch(sql["behind"], growth.spawner, list(asked))}
    tied = bound(growth)
    for stand_in, name in growth.outside.items():
        if real[stand_in] in behind and stand_in in tied:
            raise InvalidFlow(
                f"a spawned node waits for {name!r}, which waits for what is spawned here: name another node, "
                "or spawn it with detached=True"
            )
    # Spawned by what another has spawned, which waits for this: it can wait for that other alone.
    return {id: Way(id, joins) for id, joins in ways.items() if not behind.intersection(joins.values())}


async def _tie(
    connection: Connection, sql: Statements, growth: Growth, real: Mapping[UUID, UUID], ways: Mapping[UUID, Way]
) -> None:
    """Let edges lead from stored nodes: where these have spawned, from the joins that stand for them."""
    plan, tests = growth.plan, growth.plan.tests
    if growth.way is not None:
        await _move(connection, sql, growth, growth.way)

    def parent(stand_in: UUID, condition: int) -> UUID:
        id = real.get(stand_in, stand_in)
        return ways[id].parent(condition) if id in ways else id

    plan.edges = [(parent(id, condition), child, condition) for id, child, condition in plan.edges]
    plan.tests = []
    for id, child, number, text in tests:
        asks = Asks(real.get(id, id), child, number, codec.load(text))
        way = ways.get(asks.parent)
        if way is not None and "op" in asks.test:
            asks = look_at_both(growth, asks, way, mint.job_id(), codec.dump)
        elif way is not None:
            asks = asks._replace(parent=way.parent(asks.test["on"]))
        test = dict(asks.test)
        if "rivals" in test:
            test["rivals"] = [str(real.get(UUID(rival), rival)) for rival in test["rivals"]]
        plan.tests.append((*asks[:3], codec.dump(test)))


async def _move(connection: Connection, sql: Statements, growth: Growth, way: Way) -> None:
    """What waits for the spawner waits for the joins instead."""
    asked = await connection.fetch(sql["tests_of"], way.job)
    if any(condition == Condition.SUCCEEDED_OR_CANCELLED for _, _, condition, _ in asked):
        add_join(growth, Condition.SUCCEEDED_OR_CANCELLED, mint.job_id())
    tests = [Asks(way.job, child, number, codec.load(test)) for child, number, _, test in asked if test is not None]
    if tests:
        edges = [look_at_both(growth, asks, way, mint.job_id(), codec.dump) for asks in tests]
        columns = zip(*((edge.child, edge.number, edge.parent, codec.dump(edge.test)) for edge in edges), strict=True)
        await connection.execute(sql["part_edges"], way.job, *map(list, columns))
    joins = growth.joins
    await connection.execute(
        sql["move_edges"],
        way.job,
        joins[Condition.SUCCEEDED],
        joins[Condition.FINISHED],
        joins.get(Condition.SUCCEEDED_OR_CANCELLED),
    )


async def expand(
    connection: Connection, sql: Statements, ending: Ending, expansion: Expansion, settled: Settled
) -> list[Final]:
    """Write a map's items and let the map wait for them. It has left its lease. The map as cancelled, if it was asked
    to stop meanwhile."""
    roots = await lock(connection, sql, [expansion.flow_id])
    stopped = await stop_requests(connection, sql, [expansion.id])
    if stopped:
        return [stopped[0].final(ending.attempt)]
    ids = [row.id for row in expansion.items]
    edges: list[EdgeRow] = [(id, expansion.id, 2) for id in ids]
    plan = Plan(jobs=expansion.items, edges=edges, blocked=[(expansion.id, len(ids), len(ids))], free=expansion.items)
    await insert.insert_nodes(connection, sql, plan, roots[expansion.flow_id])
    await connection.execute(sql["expand_map"], expansion.id, expansion.args, ids)
    await _release(connection, sql, plan.free, settled)
    await _stop_if_cancelled(connection, sql, expansion.flow_id, [expansion.id, *ids], settled)
    return []


async def _release(connection: Connection, sql: Statements, free: Sequence[JobRow], settled: Settled) -> None:
    if free:
        await connection.execute(sql["copied_free"], [row.id for row in free])
        plan = Plan(free=list(free))
        settled.queues |= plan.queues()
        settled.scheduled |= plan.scheduled()


async def _stop_if_cancelled(
    connection: Connection, sql: Statements, flow: UUID, new: Sequence[UUID], settled: Settled
) -> None:
    """A flow that was cancelled, or is in one that was, takes in nothing new, but for what is not cancelled with it."""
    requests = await connection.fetch(sql["requests_around"], flow)
    if requests:
        stopped = [row[0] for row in await connection.fetch(sql["stoppable"], new)]
        reason, actor = requests[0]
        ended = await cancel(connection, sql, stopped, settled, reason=reason, actor=actor)
        await follow(connection, sql, ended, settled)


async def _pin(connection: Connection, sql: Statements, ids: Collection[UUID], settled: Settled) -> dict[UUID, Ended]:
    """Hold stored nodes where they stand, and the ends of their flows; those that have ended, and how."""
    ends = [row[1] for row in await connection.fetch(sql["closings"], list(ids))] if ids else []
    await settled.hold.jobs(connection, sql, ids, ends)
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
