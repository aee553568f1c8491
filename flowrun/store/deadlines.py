"""What should have started, or ended, by now."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from flowrun import codec
from flowrun.core.callback import Calls, nothing
from flowrun.core.states import Outcome
from flowrun.errors import NotFound
from flowrun.logs import Log
from flowrun.store import control, stop
from flowrun.store.blame import Fault, fault_of
from flowrun.store.bulk import By
from flowrun.store.callbacks import call_back
from flowrun.store.finish import Final, Settled, finish, hold_to_cancel, whole
from flowrun.store.pool import Connection, reason
from flowrun.store.statement import Statements

logger = Log("flowrun.worker")


async def overdue(connection: Connection, sql: Statements, settled: Settled, calls: Calls = nothing) -> None:
    """Deal with what should have started, or ended, by now: each in a transaction of its own."""
    for id, kind in await connection.fetch(sql["overdue"]):
        one = Settled()

        async def work(id: UUID = id, kind: int = kind, one: Settled = one) -> None:
            with suppress(NotFound):
                await control.lock(connection, sql, id)
                if not await connection.fetch(sql["is_overdue"], id):
                    return  # another worker was faster
                if kind == 0:
                    await _start_too_late(connection, sql, id, one)
                else:
                    await control.cancel_job(connection, sql, id, By(reason="its deadline is over"), one)
            # The last to be locked: who replaces a job removes it from where it waits before its deadline.
            await connection.execute(sql["forget_deadline"], id)
            await call_back(connection, sql, one, calls)

        try:
            await whole(connection, one, work)
        except Exception as error:
            if fault_of(error) is not Fault.DATA:
                raise
            # It is not tried again: it would keep all others from ending in time.
            logger.error("the deadline of %s is over, and it cannot be ended: %s", id, reason(error))  # noqa: TRY400
            await connection.execute(sql["forget_deadline"], id)
            continue
        settled.add(one)


async def _start_too_late(connection: Connection, sql: Statements, id: UUID, settled: Settled) -> None:
    root = await control.lock(connection, sql, id)
    parents = [] if root is None else await control.open_parents(connection, sql, root, [id])
    await hold_to_cancel(connection, sql, [id], settled, parents)
    await control.keep_open(connection, sql, parents, settled)
    leased = await connection.fetchval(sql["not_started"], id)
    if leased:
        await connection.execute(sql["mark_late"], id)
    elif leased is not None:
        stopped = await stop.find(connection, sql, [id], settled.hold)
        late = codec.dump({"type": "flowrun.StartedTooLate", "message": "its first attempt did not begin by start_by"})
        finals = [Final(job, Outcome.FAILED, attempt, error=late) for job, attempt in stopped.withdrawn.items()]
        await finish(connection, sql, finals, settled)
