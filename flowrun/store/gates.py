"""Nodes that wait for a signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from flowrun.core.attempt import Ending
from flowrun.core.growth import Parked
from flowrun.core.states import Outcome
from flowrun.store.finish import Final, Settled, finish, hold_to_cancel, stop_requests
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

TIMED_OUT = '{"type":"flowrun.GateTimeout","message":"no signal came in time"}'


async def park(connection: Connection, sql: Statements, ending: Ending, gate: Parked, settled: Settled) -> list[Final]:
    """Let a gate that was reached wait for its signal; how it ended, if the signal is there or its time is over.

    It has left its lease. Its flow is locked, so no signal passes by.
    """
    stopped = await stop_requests(connection, sql, [ending.id])
    if stopped:
        return [stopped[0].final(ending.attempt)]
    note, value, root = await connection.fetchrow(sql["park"], ending.id, ending.flow_id, gate.signal, gate.timeout)
    if note == "signalled":
        result = value if gate.taken is None else gate.taken(root, value)
        return [Final(ending.id, Outcome.SUCCEEDED, 1, result)]
    if note == "late" and gate.default is not None:
        return [Final(ending.id, Outcome.SUCCEEDED, 1, gate.default)]
    if note == "late":
        return [Final(ending.id, Outcome.FAILED, 1, error=TIMED_OUT)]
    settled.scheduled |= gate.timeout is not None
    return []


async def signal(
    connection: Connection,
    sql: Statements,
    root: UUID,
    name: str,
    value: str,
    actor: str | None,
    settled: Settled,
    result: Callable[[UUID], str],
) -> bool:
    """Keep a signal, and open the gates that wait for it; False if it came before. The flow is locked.

    ``result`` is, by gate, the value as the gate's result is stored.
    """
    if not await connection.fetch(sql["insert_signal"], root, name, value, actor):
        return False
    waiting = [row[0] for row in await connection.fetch(sql["waiting_gates"], root, name)]
    await hold_to_cancel(connection, sql, waiting, settled)
    opened: Sequence[UUID] = [row[0] for row in await connection.fetch(sql["open_gates"], root, name)]
    await finish(connection, sql, [Final(id, Outcome.SUCCEEDED, 1, result(id)) for id in opened], settled)
    return True
