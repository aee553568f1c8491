"""Taking jobs out of the way, wherever they stand: what waits is withdrawn, what runs is asked to stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from flowrun import codec
from flowrun.core.states import Kind
from flowrun.store.hold import Hold
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

START = "/(start)"
"""After an inner flow's name: the join that its first nodes wait for."""

_OWN = (Kind.END, Kind.JOIN, Kind.VERDICT)


@dataclass(slots=True)
class Stopped:
    """Where the jobs were found."""

    withdrawn: dict[UUID, int] = field(default_factory=dict)
    """Those that waited, with the attempts they had used; they stand nowhere now, or are held where they wait."""
    running: list[UUID] = field(default_factory=list)
    ended: list[UUID] = field(default_factory=list)
    harmless: set[UUID] = field(default_factory=set)
    """Those whose cancellation keeps no flow from succeeding."""


async def stop(
    connection: Connection,
    sql: Statements,
    ids: Sequence[UUID],
    hold: Hold,
    *,
    reason: str | None,
    actor: str | None,
    harmless: bool = False,
) -> Stopped:
    """Withdraw jobs that wait; ask those that run to stop. An id of a flow stands for all that is in it, that of a map
    for its items; a map waits for those that run, and a flow that has not begun is withdrawn itself.

    Nothing is asked of what has ended, nor of a flow in which nothing could be stopped. ``harmless`` is meant of
    ``ids``, not of what is in them: that says how they went. The end of each flow concerned waits for what goes on: for
    those that run, and those that are not stopped with it.
    """
    flows = await _expand(connection, sql, ids)
    inside = [Inside(*row) for rows in flows.values() for row in rows]
    singles = [id for id in ids if id not in flows]
    targets = [*singles, *(row.id for row in inside if _stops(row.kind, row.stays, row.outcome))]
    maps = [*singles, *(row.id for row in inside if row.kind == Kind.MAP and row.outcome is None and not row.stays)]
    entrances = dict(await connection.fetch(sql["entrances"], list(flows))) | _entrances(inside)
    others = {row.id for row in inside if row.outcome is None and not row.after and row.kind != Kind.VERDICT}
    # Pinned as well: one that is just ending has read its edges already, and would not count one more.
    await hold.jobs(connection, sql, others.union(targets))
    stopped, items = await _take(connection, sql, targets, maps, entrances, inside, hold)
    waiting = items.keys() - stopped.withdrawn.keys() - set(stopped.running)
    met = stopped.withdrawn.keys() | set(stopped.running) | waiting
    # A flow none of whose jobs is stopped is not cancelled: it is about to end as they did.
    named = {id for id in ids if id in met or any(row[0] in met for row in flows.get(id, ()))}
    own = {row.id for row in inside if row.kind == Kind.JOIN} | set(entrances.values())
    of_maps = {item for id in singles for item in items.get(id, ())}
    stopped.harmless = own | (named | of_maps if harmless else set())
    await _ask(connection, sql, named - stopped.withdrawn.keys(), reason, actor, harmless)
    running = set(stopped.running).union(waiting) - named
    await _ask(connection, sql, running & stopped.harmless, reason, actor, True)
    await _ask(connection, sql, running - stopped.harmless, reason, actor, False)
    going_on = await find(
        connection, sql, others - stopped.withdrawn.keys() - set(stopped.running), hold, withdraw=False
    )
    await hold_open(connection, sql, [*going_on.withdrawn, *going_on.running, *stopped.running, *waiting], hold)
    return stopped


class Inside(NamedTuple):
    """A job of a flow that is stopped."""

    id: UUID
    kind: int
    flow_id: UUID
    name: str
    stays: bool
    """It is not cancelled with its flow."""
    after: bool
    """It comes after the flow's end."""
    outcome: int | None


async def _take(
    connection: Connection,
    sql: Statements,
    targets: Sequence[UUID],
    maps: Sequence[UUID],
    entrances: Mapping[UUID, UUID],
    inside: Sequence[Inside],
    hold: Hold,
) -> tuple[Stopped, Mapping[UUID, set[UUID]]]:
    """Withdraw the ``targets`` and what goes with them, but for maps whose items run; the items that maps had left."""
    if not maps and not entrances:
        return await find(connection, sql, targets, hold), {}
    within = _within(inside, entrances)
    held = {*targets, *entrances.values(), *(id for ids in within.values() for id in ids)}
    items: dict[UUID, set[UUID]] = {}
    while True:
        pinned = await find(connection, sql, held, hold, withdraw=False)
        items = {}
        for map, item in await connection.fetch(sql["map_items"], maps):
            items.setdefault(map, set()).add(item)
        fresh = {item for its in items.values() for item in its} - held
        if not fresh:
            break
        held |= fresh
    runs = set(pinned.running)
    waiting = {id for id, its in items.items() if its & runs}
    begun = {end for end, entrance in entrances.items() if entrance not in pinned.withdrawn}
    never = {id for end, ids in within.items() if end not in begun for id in (entrances[end], *ids)}
    taken = ({*targets, *never} | {item for its in items.values() for item in its}) - waiting
    stopped = await find(connection, sql, taken, hold)
    for id in items.keys() & stopped.withdrawn.keys():
        stopped.withdrawn[id] = max(stopped.withdrawn[id], 1)
    return stopped, items


def _entrances(inside: Sequence[Inside]) -> dict[UUID, UUID]:
    """By end of a flow: the join that its first nodes wait for, where it has not begun."""
    ends = {row.name: row.id for row in inside if row.kind == Kind.END and row.outcome is None}
    return {
        ends[row.name.removesuffix(START)]: row.id
        for row in inside
        if row.kind == Kind.JOIN
        and row.outcome is None
        and not row.stays
        and row.name.endswith(START)
        and row.name.removesuffix(START) in ends
    }


def _within(inside: Sequence[Inside], entrances: Mapping[UUID, UUID]) -> dict[UUID, set[UUID]]:
    """By end of a flow with an entrance: what of flowrun's own goes with it if it has not begun, its end among them.

    Nothing where some node in it runs all the same.
    """
    content: dict[UUID, list[Inside]] = {}
    for row in inside:
        if row.outcome is None:
            content.setdefault(row.flow_id, []).append(row)
    within: dict[UUID, set[UUID]] = {}
    for end in entrances:
        rows, stack = list[Inside](), [end]
        while stack:
            here = content.get(stack.pop(), [])
            rows += here
            stack += [row.id for row in here if row.kind == Kind.END]
        goes_on = any(row.stays and not row.after for row in rows)
        within[end] = set() if goes_on else {end, *(row.id for row in rows if row.kind in (Kind.END, Kind.JOIN))}
    return within


async def concerned(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> tuple[set[UUID], set[UUID]]:
    """What :func:`stop` will hold of jobs and flows: the jobs, and of their flows' ends the counters. Locks nothing."""
    flows = await _expand(connection, sql, ids)
    inside = [Inside(*row) for rows in flows.values() for row in rows]
    jobs = {*ids, *(row.id for row in inside if row.outcome is None)}
    jobs.update(row[1] for row in await connection.fetch(sql["map_items"], list(jobs)))
    if flows:
        jobs.update(row[1] for row in await connection.fetch(sql["entrances"], list(flows)))
    return jobs, {row[1] for row in await connection.fetch(sql["closings"], list(jobs))}


async def find(
    connection: Connection, sql: Statements, ids: Iterable[UUID], hold: Hold, *, withdraw: bool = True
) -> Stopped:
    """Take away the jobs that wait (or hold them where they are), and pin those that run.

    Until the transaction ends none of them moves on by a settle that does not see what the transaction wrote.
    """
    wanted = dict.fromkeys(ids)
    await hold.jobs(connection, sql, wanted)
    stopped = Stopped()
    if wanted:
        for id, attempt in await connection.fetch(sql["withdraw" if withdraw else "waiting"], list(wanted)):
            stopped.withdrawn[id] = max(attempt, stopped.withdrawn.get(id, 0))
    left = [id for id in wanted if id not in stopped.withdrawn]
    if left:
        open_still = {row[0] for row in await connection.fetch(sql["unfinished"], left)}
        stopped.running = [id for id in left if id in open_still]
        stopped.ended = [id for id in left if id not in open_still]
    return stopped


async def hold_open(connection: Connection, sql: Statements, ids: Iterable[UUID], hold: Hold) -> bool:
    """Let the ends of their flows wait for these jobs, whatever is decided about those behind them.

    Whether all these ends do: one that waits for nothing any more is left alone.
    """
    rows = await connection.fetch(sql["closings"], list(ids))
    if not rows:
        return True
    await hold.counters(connection, sql, {row[1] for row in rows})
    held = await connection.fetch(sql["hold_open"], [row[0] for row in rows], [row[1] for row in rows])
    return {row[1] for row in rows} <= {row[0] for row in held}


def words(reason: str | None, actor: str | None) -> str | None:
    """Why a job was cancelled, as it is kept; None if nobody said."""
    by = f"by {actor}" if actor else ""
    message = ": ".join(part for part in (by, reason) if part)
    return codec.dump({"message": message}) if message else None


async def _ask(
    connection: Connection, sql: Statements, ids: Iterable[UUID], reason: str | None, actor: str | None, harmless: bool
) -> None:
    asked = list(ids)
    if asked:
        await connection.execute(sql["request_cancel"], asked, reason, actor, harmless)


async def _expand(connection: Connection, sql: Statements, ids: Sequence[UUID]) -> dict[UUID, list[Any]]:
    """By id of a flow among ``ids``: the rows of all that is in it."""
    flows = [row[0] for row in await connection.fetch(sql["ends"], ids)]
    return {flow: await connection.fetch(sql["inside_flow"], flow) for flow in flows}


def _stops(kind: int, stays: bool, outcome: int | None) -> bool:
    return outcome is None and not stays and kind not in _OWN
