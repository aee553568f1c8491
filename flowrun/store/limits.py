"""Claiming what may not all run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from flowrun.core.attempt import Claimed
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

LANES = 20
"""Lanes looked at in one claim, at least; as many as it may bring jobs, if that is more."""


class Taken(NamedTuple):
    """What a claim under limits brought."""

    leases: dict[int, list[Claimed]]
    held: dict[int, dict[str, tuple[int | None, int | None]]]
    """By lease and place: how many slots of its queue and of its key the worker holds as of this claim."""
    cursors: dict[str, str]
    """By queue: where the next look at its lanes begins."""
    lanes: int
    """How many lanes were looked at."""
    whole: bool
    """All lanes were looked at: there is nothing more to be had before something changes."""
    wait: float | None
    """Seconds after which a rate allows the next job; None: no rate is in the way."""
    blocked: bool
    """A limit kept out something: it may let it in as soon as a job of somebody else has ended."""
    starving: bool
    """Others have all that it allows."""


async def any_lane(connection: Connection, sql: Statements, queues: Sequence[str]) -> bool:
    """Whether anything is ready in a lane of ``queues``."""
    return bool(await connection.fetchval(sql["any_lane"], queues))


async def claim(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    lease: int,
    limit: int,
    types: Sequence[str],
    limited: Sequence[str],
    cursors: dict[str, str],
    changes: int,
    needs: Mapping[str, int],
) -> Taken:
    """Up to ``limit`` jobs from ``limited`` queues and from the lanes of those in ``cursors`` (none: all of
    them are empty). ``needs``: of how many slots this worker makes use already, by name.

    Takes as many lease numbers from ``lease`` on as it brings jobs, or as there are ``limited`` queues, at most. Claims
    under limits come one after the other, on all workers together. One that met another takes the lock in a statement
    of its own the second time, so that it sees what it has waited for."""
    name = "claim_limited" if cursors else "claim_bounded"
    values: list[object] = [worker_id, lease, limit, types, limited]
    if cursors:
        values += [list(cursors), list(cursors.values()), max(LANES, limit)]
    values += [changes, list(needs), list(needs.values())]
    rows = await connection.fetch(sql[name], *values)
    if any(row[0] == 4 for row in rows):
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(sql["lock_limits"])
            rows = await connection.fetch(sql[name], *values)
    found = Taken({}, {}, {}, 0, True, None, False, False)
    lanes, whole, wait, blocked, starving = 0, True, None, False, False
    for row in rows:
        if row[0] == 0:
            job = Claimed(row[1:13], row[13])
            found.leases.setdefault(job.lease, []).append(job)
            found.held.setdefault(job.lease, {})[job.queue] = (row[17], row[18])
        elif row[0] == 1:
            found.cursors[row[6]] = "" if row[14] is None else row[14]
            whole = whole and row[15]
            lanes += row[13]
        elif row[0] == 3:
            blocked, starving = True, row[15]
        else:
            wait = max(0.0, row[16]) if wait is None else min(wait, max(0.0, row[16]))
    return found._replace(lanes=lanes, whole=whole, wait=wait, blocked=blocked, starving=starving)


class Wanted(NamedTuple):
    """Jobs of one place that nobody has to be asked for."""

    place: str
    mark: tuple[int, UUID]
    """The low-water mark."""
    most: int
    slots: Sequence[tuple[str, int]]
    """What they take up, and how many of it the worker holds."""


async def claim_held(
    connection: Connection,
    sql: Statements,
    *,
    worker_id: UUID,
    lease: int,
    types: Sequence[str],
    wanted: Sequence[Wanted],
    changes: int,
) -> list[Claimed]:
    """What is ready of what is ``wanted``, in one lease, place by place."""
    slots = [(name, most, each.place) for each in wanted for name, most in each.slots]
    rows = await connection.fetch(
        sql["claim_held"],
        worker_id,
        lease,
        types,
        [each.place for each in wanted],
        [each.mark[0] for each in wanted],
        [each.mark[1] for each in wanted],
        [each.most for each in wanted],
        changes,
        [name for name, _, _ in slots],
        [most for _, most, _ in slots],
        [place for _, _, place in slots],
    )
    return [Claimed(row, lease) for row in rows]


async def give(
    connection: Connection, sql: Statements, *, worker_id: UUID, kept: Sequence[tuple[str, int, int]]
) -> None:
    """Hold no more slots than these from now on: name, lease, and how many as of that; 0 if the lease is gone."""
    await connection.execute(
        sql["give_slots"],
        worker_id,
        [name for name, _, _ in kept],
        [lease for _, lease, _ in kept],
        [most for _, _, most in kept],
    )
