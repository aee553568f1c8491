"""Claiming what may not all run at once."""

from __future__ import annotations

from collections.abc import Sequence
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
    cursors: dict[str, str]
    """By queue: where the next look at its lanes begins."""
    whole: bool
    """All lanes were looked at: there is nothing more to be had before something changes."""
    wait: float | None
    """Seconds after which a rate allows the next job; None: no rate is in the way."""
    blocked: bool
    """A limit kept out something: it may let it in as soon as a job of somebody else has ended."""


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
) -> Taken:
    """Up to ``limit`` jobs from ``limited`` queues and from the lanes of those in ``cursors`` (none: all of
    them are empty).

    Takes as many lease numbers from ``lease`` on as it brings jobs, or as there are ``limited`` queues, at most. Claims
    under limits come one after the other, on all workers together. One that met another takes the lock in a statement
    of its own the second time, so that it sees what it has waited for."""
    name = "claim_limited" if cursors else "claim_bounded"
    values: list[object] = [worker_id, lease, limit, types, limited]
    if cursors:
        values += [list(cursors), list(cursors.values()), max(LANES, limit)]
    values.append(changes)
    rows = await connection.fetch(sql[name], *values)
    if any(row[0] == 4 for row in rows):
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(sql["lock_limits"])
            rows = await connection.fetch(sql[name], *values)
    found = Taken({}, {}, True, None, False)
    whole, wait, blocked = True, None, False
    for row in rows:
        if row[0] == 0:
            job = Claimed(row[1:13], row[13])
            found.leases.setdefault(job.lease, []).append(job)
        elif row[0] == 1:
            found.cursors[row[6]] = "" if row[14] is None else row[14]
            whole = whole and row[15]
        elif row[0] == 3:
            blocked = True
        else:
            wait = max(0.0, row[16]) if wait is None else min(wait, max(0.0, row[16]))
    return found._replace(whole=whole, wait=wait, blocked=blocked)
