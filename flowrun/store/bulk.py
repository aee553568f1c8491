"""The same done to many jobs at once, in sets. The caller of what ends in `_here` or begins with `undo` holds the
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from flowrun import mint
from flowrun.core.options import MAX_NAME, MAX_REASON, check_text
from flowrun.core.states import Outcome
from flowrun.store import edits
from flowrun.store.edits import Edit
from flowrun.store.finish import Settled, cancel, follow, whole
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


@dataclass(frozen=True, slots=True)
class By:
    """Who does something, and why: kept with what was done. Raises ConfigurationError for what cannot be."""

    actor: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        check_text("actor=", self.actor, MAX_NAME)
        check_text("reason=", self.reason, MAX_REASON)


async def cancel_singles(
    connection: Connection, sql: Statements, ids: Sequence[UUID], by: By, settled: Settled
) -> list[UUID]:
    """Cancel jobs that belong to no flow; those that were cancelled or asked to stop."""

    async def work() -> list[UUID]:
        return await cancel_here(connection, sql, None, ids, by, settled)

    return await whole(connection, settled, work)


async def cancel_here(
    connection: Connection, sql: Statements, root: UUID | None, ids: Sequence[UUID], by: By, settled: Settled
) -> list[UUID]:
    """Cancel jobs, all of one flow (which is locked) or all of none."""
    ends = await cancel(connection, sql, ids, settled, reason=by.reason, actor=by.actor)
    stopped = {*ends, *settled.interrupt}
    concerned = [id for id in ids if id in stopped]
    await follow(connection, sql, ends, settled)
    await note_all(connection, sql, root, concerned, "cancel", by)
    return concerned


async def retry_singles(
    connection: Connection, sql: Statements, ids: Sequence[UUID], args: Edit | None, by: By, settled: Settled
) -> list[UUID]:
    """Run jobs again that belong to no flow; those that had failed or were cancelled, and do."""
    async with connection.transaction(isolation="read_committed"):
        undone = await undo_singles(connection, sql, ids, args, settled)
        await note_all(connection, sql, None, undone, "retry", by)
        return undone


async def undo_singles(
    connection: Connection, sql: Statements, ids: Sequence[UUID], args: Edit | None, settled: Settled
) -> list[UUID]:
    """Take back the outcomes of those that failed or were cancelled, and let them run again; which these were.

    Their outcomes are locked first: of two who retry a job one does, and it is not removed meanwhile.
    """
    held = await connection.fetch(sql["hold_ended"], ids)
    undone = [id for id, outcome in held if outcome in (Outcome.FAILED, Outcome.CANCELLED)]
    if undone:
        if args is not None:
            await edits.edit(connection, sql, undone, args)
        await connection.execute(sql["undo"], undone)
        settled.read(await connection.fetch(sql["release_again"], undone))
    return undone


async def parents_in_steps(
    connection: Connection, sql: Statements, root: UUID, steps: Sequence[Sequence[UUID]]
) -> list[list[UUID]]:
    """What the jobs of a flow wait for, and its end may have to wait for, by step of a verb; ended or not.

    Read once for all steps, so that the cost of a step does not grow with the flow. The steps are ascending, and none
    of the ids is a flow's.

    It stays true although the flow is not locked. A stored job comes to wait for more only when its parent spawns, and
    then for a join that the end waits for as well, or when it is a map that begins, which takes its items with it.
    """
    found: list[list[UUID]] = [[] for _ in steps]
    ids = [id for step in steps for id in step]
    for step, parent in await connection.fetch(sql["parents_in_steps"], root, ids, [step[0] for step in steps]):
        found[step].append(parent)
    return found


async def note_all(
    connection: Connection, sql: Statements, root: UUID | None, ids: Sequence[UUID], verb: str, by: By
) -> None:
    """Keep what was done to each of them."""
    if ids:
        notes = [mint.job_id() for _ in ids]
        await connection.execute(sql["audit_all"], notes, ids, root, verb, by.actor, by.reason)
