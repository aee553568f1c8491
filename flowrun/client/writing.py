"""Writing what was compiled: on a connection of the pool or in somebody else's transaction, as the role may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID

import anyio

from flowrun.client.notify import Notifier, wakes
from flowrun.client.shield import shielded
from flowrun.client.singles import Singles
from flowrun.core.plan import KeyRow, Plan
from flowrun.store import callers, granted, insert, reads
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.listen import Channels
from flowrun.store.pool import Connection, Database

FEW = 100
"""Jobs of one dispatch up to which they share an insert with those of others."""

_shield = partial(anyio.CancelScope, shield=True)


class Writing:
    """Stores plans and wakes workers."""

    def __init__(self, database: Database, channels: Channels, notifier: Notifier, singles: Singles) -> None:
        self._database = database
        self._sql = database.sql
        self._channels = channels
        self._notifier = notifier
        self._singles = singles

    async def write(self, plan: Plan, tx: object = None) -> Mapping[UUID, UUID]:
        """Store a plan at once, or in the transaction of ``tx``, and wake workers.

        By id of the jobs or the flow that were not written, because their keys are held: by whom.
        """
        if not plan.size:
            return {}
        if tx is not None:
            return await self._write_into(plan, tx)
        if not plan.flows and not plan.special and len(plan.jobs) <= FEW:
            await self._singles.write(plan.jobs)
            return {}
        duplicates: Mapping[UUID, UUID] = {}
        messages: Sequence[tuple[str, str]] = ()
        if plan.keys:
            # Not shielded as a whole: it may wait long, for a transaction that has the key and is not at its end.
            duplicates = await granted.written(self._database, partial(self._write_keyed, plan))
        else:
            if insert.is_one_statement(plan):
                messages = self._notifier.ride(plan.queues(), scheduled=plan.scheduled())
            write = granted.written(self._database, partial(self._write_plan, plan, messages))
            await (shielded(write) if plan.flows else write)
        written = plan.without(duplicates) if duplicates else plan
        self._notifier.wake(written.queues(), scheduled=written.scheduled(), told=bool(messages))
        return duplicates

    async def nodes(self, flow_id: UUID, key: KeyRow, tx: object = None) -> dict[str, tuple[UUID, str]]:
        """By name: id and type of every node of a flow that has ``key``."""
        if tx is not None:
            with callers.translated(self._database.schema):
                caller = await callers.adapt(tx, _shield)
                if await granted.may_write(caller, self._sql):
                    return await reads.flow_nodes_of(caller, self._sql, flow_id)
                return await granted.nodes(caller, self._sql, key, flow_id)
        if self._database.writes is not False:
            return await reads.flow_nodes(self._database, flow_id)
        return await self._database.repeat(
            lambda connection: granted.nodes(AsyncpgCaller(connection, _shield), self._sql, key, flow_id)
        )

    async def _write_into(self, plan: Plan, tx: object) -> Mapping[UUID, UUID]:
        """The notification goes in the same transaction: only its owner knows when it commits."""
        messages: Sequence[tuple[str, str]] = ()
        if not plan.special:
            messages = wakes(self._channels, plan.queues(), scheduled=plan.scheduled())
        with callers.translated(self._database.schema):
            caller = await callers.adapt(tx, _shield)
            # Asked each time: the role may be another than before (`set role`).
            into = insert.insert_for if await granted.may_write(caller, self._sql) else granted.dispatch
            duplicates = await into(caller, self._sql, plan, messages)
            if plan.special:
                written = plan.without(duplicates) if duplicates else plan
                told = wakes(self._channels, written.queues(), scheduled=written.scheduled())
                await insert.notify(caller, self._sql, told)
        return duplicates

    async def _write_plan(
        self, plan: Plan, messages: Sequence[tuple[str, str]], connection: Connection, writes: bool
    ) -> None:
        if writes:
            await insert.insert_plan(connection, self._sql, plan, messages)
        else:
            await granted.dispatch(AsyncpgCaller(connection, _shield), self._sql, plan, messages)

    async def _write_keyed(self, plan: Plan, connection: Connection, writes: bool) -> Mapping[UUID, UUID]:
        caller = AsyncpgCaller(connection, _shield, own=True)
        return await (insert.insert_for if writes else granted.dispatch)(caller, self._sql, plan)
