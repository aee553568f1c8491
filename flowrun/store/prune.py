"""Removing what has ended and is kept no longer, with all that belongs to it. The unit is a single job or a whole flow.

Nothing here waits for anybody: what somebody holds (an operator who runs it again, a dispatch that takes over its key,
another pruner) is passed by, and found again the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from flowrun.core.states import Outcome
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

LOOK = 1000
"""Jobs looked at in one step ..."""
LOOK_BEHIND = 20_000
"""... and looked at and removed when it is :data:`BEHIND`: with full load, a step waits for longer than it works."""
MOST = 5000
"""Jobs removed in one step, unless a single flow has more, or it is behind."""
BEHIND = 10.0
"""Seconds by which a pass may lag behind what it may remove. Beyond, it does not rest: tables would grow for ever."""
PASS = 60.0
"""Seconds from one pass to the next, at least ..."""
PASS_SHORT = 5.0
"""... or as long as what is kept shortest, down to this."""
_KEYS = 1000
_FIRST = UUID(int=0)
_LAST = UUID(int=(1 << 128) - 1)


class Rule(NamedTuple):
    """How long what ended so is kept."""

    scope: str
    """``all``, ``flow``, ``queue`` or ``type``."""
    name: str
    outcome: Outcome
    seconds: float


class Filter(NamedTuple):
    """What units must be like; None: no matter. The order is that of expired.sql."""

    older_than: float | None = None
    """Seconds ago that it ended, whatever its retention."""
    outcome: Outcome | None = None
    type: str | None = None
    queue: str | None = None
    tag: str | None = None
    name: str | None = None
    """Of the flow."""
    since: datetime | None = None
    until: datetime | None = None
    kind: int | None = None
    """0: only single jobs, 1: only flows."""


class Removed(NamedTuple):
    """What was removed."""

    jobs: list[UUID]
    """Single jobs."""
    flows: list[UUID]
    """Outermost flows, with all their jobs."""


class Sweep(NamedTuple):
    """What one step over a stretch of ids did, and the last id it dealt with (None: there were no more)."""

    removed: Removed
    mark: UUID | None


class Step(NamedTuple):
    """What one step of a worker did."""

    removed: Removed
    pause: float
    """Seconds until the next."""


async def declare(connection: Connection, sql: Statements, rules: Sequence[Rule], types: Sequence[str]) -> None:
    """Write rules; of ``types``, those that none of them names are kept as long as everybody else's."""
    ordered = sorted(set(rules))
    columns = [list(column) for column in zip(*ordered, strict=True)] if ordered else [[], [], [], []]
    await connection.execute(sql["put_retention"], *columns, types)


async def rules(connection: Connection, sql: Statements) -> list[Rule]:
    """All rules there are."""
    rows = await connection.fetch(sql["retention"])
    return [Rule(scope, name, Outcome(outcome), seconds) for scope, name, outcome, seconds in rows]


async def step(connection: Connection, sql: Statements) -> Step | None:
    """One step of the workers' common pass over all that is old; None: it is not time, or another's turn.

    A pass looks first at what has a retention of its own, then at all that is older than the shortest one. Between
    steps it rests as long as a step took that removed something, and nine times as long after one that only looked. One
    that lags behind removes more in a step, and does not rest.
    """
    async with connection.transaction(isolation="read_committed"):
        turn = await connection.fetchrow(sql["prune_turn"])
        if turn is None:
            return None
        begun = monotonic()
        own, mark, took, shortest, now = turn
        last = _LAST if own else _before(now - shortest)
        look = "look_own" if own else "look"
        behind = not own and _is_behind(mark, last)
        swept = await _sweep(connection, sql, look, mark, last, Filter(), behind=behind)
        pause = (monotonic() - begun) * (1 if any(swept.removed) else 9)
        if not own and swept.mark is not None and any(swept.removed) and _is_behind(swept.mark, last):
            pause = 0.0
        if swept.mark is not None:
            mark = swept.mark
        elif own:
            own, mark = False, _FIRST
        else:
            own, mark = True, _FIRST
            keys = await connection.fetchval(sql["expired_keys"], _KEYS)
            pause = max(min(PASS, max(PASS_SHORT, shortest)), took) if keys < _KEYS else pause
        await connection.execute(sql["prune_on"], own, mark, pause, own and mark == _FIRST)
        return Step(swept.removed, pause)


async def sweep(connection: Connection, sql: Statements, after: UUID, what: Filter, *, dry_run: bool = False) -> Sweep:
    """Remove (or only find) what passes a filter, in one stretch of ids; for the next, begin at its mark."""
    async with connection.transaction(isolation="read_committed"):
        return await _sweep(connection, sql, "look", after, _LAST, what, dry_run=dry_run)


async def _sweep(
    connection: Connection,
    sql: Statements,
    look: str,
    after: UUID,
    last: UUID,
    what: Filter,
    *,
    behind: bool = False,
    dry_run: bool = False,
) -> Sweep:
    await connection.execute(sql["pin_plans"])
    count, most = (LOOK_BEHIND, LOOK_BEHIND) if behind else (LOOK, MOST)
    ids = await connection.fetchval(sql[look], after, last, count)
    if not ids:
        return Sweep(Removed([], []), None)
    outcome = None if what.outcome is None else int(what.outcome)
    units = await connection.fetch(sql["expired"], ids, what.older_than, outcome, *what[2:])
    end = ids[-1] if len(ids) == count else None
    if not units:
        return Sweep(Removed([], []), end)
    if dry_run:
        flows = [row[0] for row in units if row[1] == 1]
        closed = await _ids(connection, sql, "closed_flows", flows, what.older_than)
        return Sweep(Removed([row[0] for row in units if row[1] == 0], closed), end)
    return await _take_out(connection, sql, units, what.older_than, end, most)


async def _take_out(
    connection: Connection,
    sql: Statements,
    units: Sequence[Any],
    older_than: float | None,
    end: UUID | None,
    most: int,
) -> Sweep:
    """Hold the units, look at them again, and remove those that are still to be."""
    single = [row for row in units if row[1] == 0]
    jobs = await _ids(connection, sql, "hold_expired", [row[0] for row in single], [row[2] for row in single])
    flows = await _ids(connection, sql, "hold_flows", [row[0] for row in units if row[1] == 1])
    # Only now, in a snapshot from after the locks: an operator may have opened one again.
    closed = dict(await connection.fetch(sql["closed_flows"], flows, older_than)) if flows else {}
    sizes = dict.fromkeys(jobs, 1) | closed
    taken = sorted(sizes)
    total = 0
    for number, id in enumerate(taken):
        total += sizes[id]
        if total > most and number:
            taken, end = taken[:number], taken[number - 1]
            break
    free = set(await _ids(connection, sql, "hold_keys", taken))
    kept = [id for id in taken if id in free]
    removed = Removed([id for id in kept if id not in closed], [id for id in kept if id in closed])
    if any(removed):
        await connection.execute(sql["remove"], *removed)
    return Sweep(removed, end)


async def _ids(connection: Connection, sql: Statements, name: str, ids: Sequence[UUID], *more: Any) -> list[UUID]:
    return [row[0] for row in await connection.fetch(sql[name], ids, *more)] if ids else []


def _is_behind(mark: UUID, last: UUID) -> bool:
    """Whether more than :data:`BEHIND` seconds of dispatches lie between two ids. Not at the beginning of a pass, when
    nobody knows yet where the oldest are."""
    return mark != _FIRST and (last.int >> 80) - (mark.int >> 80) > BEHIND * 1000


def _before(seconds: float) -> UUID:
    """The greatest id that can have been made by that time (seconds since 1970): a UUIDv7 begins with the time."""
    if not isfinite(seconds) or seconds <= 0:
        return _FIRST
    return UUID(int=((int(seconds * 1000) + 1) << 80) - 1)
