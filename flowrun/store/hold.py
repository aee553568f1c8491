"""What a transaction that changes flows holds of the jobs it may decide about, locked in one order for all.

Jobs are locked where they stand: in places (``ready``, ``gates``, ``scheduled``), then leases by worker and number,
then counters (``blocked``) by id. A transaction waits for them once, in that order. What it finds that it needs
afterwards it takes without waiting; where somebody has it, the transaction begins anew and holds all of it from the
start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Any
from uuid import UUID

from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

TURNS = 100
"""Times that a transaction begins anew. Each misses only what moved during the one before, so two are many."""

NOBODY = UUID(int=0)


class HoldFirst(Exception):
    """The transaction has come to need what somebody else has: it must begin anew, and hold this first."""

    def __init__(self, jobs: Collection[UUID], counters: Collection[UUID]) -> None:
        super().__init__(f"{len(jobs)} job(s) and {len(counters)} counter(s)")
        self.jobs = jobs
        self.counters = counters


class _Has(IntEnum):
    """The last in order of what is locked."""

    NOTHING = 0
    LEASES = 1
    COUNTERS = 2


class Hold:
    """What one transaction holds. Until it ends none of it moves on by a settle that does not see what was written."""

    def __init__(self, before: Hold | None = None) -> None:
        self._jobs: set[UUID] = set()
        self._counters: set[UUID] = set()
        self._rows: set[UUID] = set()
        """Counters that were there when they were waited for, and are locked."""
        self._has = _Has.NOTHING
        self.first_jobs: set[UUID] = set() if before is None else before.first_jobs
        """What is held before anything else; a transaction that began before this one found that it needs it."""
        self.first_counters: set[UUID] = set() if before is None else before.first_counters

    def learn(self, more: HoldFirst) -> Hold:
        """What the transaction that begins anew holds."""
        self.first_jobs.update(more.jobs)
        self.first_counters.update(more.counters)
        return Hold(self)

    async def jobs(
        self,
        connection: Connection,
        sql: Statements,
        ids: Iterable[UUID],
        counters: Iterable[UUID] = (),
        own: tuple[UUID, Sequence[int] | None] | None = None,
    ) -> None:
        """Hold jobs where they stand, and of others the ``counters``; of the first time, also ``own`` leases.

        Raises HoldFirst.
        """
        wanted = set(ids) - self._jobs
        counted = set(counters) - self._counters - self._jobs - wanted
        if self._has is _Has.NOTHING:
            wanted |= self.first_jobs
            counted |= self.first_counters - wanted
        if not wanted and not counted:
            return
        if self._has is _Has.COUNTERS or (wanted and self._has is not _Has.NOTHING):
            left = await self._without_waiting(connection, sql, wanted, counted)
        elif self._has is _Has.NOTHING and (wanted or own is not None):
            # Counters alone wait for nothing here, but the caller's own leases come before them all the same.
            left = await self._wait(connection, sql, wanted, counted, own)
        else:
            await self._lock(connection, sql, counted)
            left = set()
        self._has = _Has.COUNTERS
        if left:
            raise HoldFirst(wanted, counted)
        self._jobs |= wanted
        self._counters |= counted

    async def counters(self, connection: Connection, sql: Statements, ids: Iterable[UUID]) -> None:
        """Hold the counters of jobs that are still blocked. Raises HoldFirst."""
        await self.jobs(connection, sql, (), ids)

    async def counted(self, connection: Connection, sql: Statements, ids: Collection[UUID]) -> tuple[list[Any], bool]:
        """The counters (id, need, open) of those of ``ids`` that are still blocked, held, and whether all of these were
        before: what was read of them since is still so. Raises HoldFirst."""
        before = len(self._rows)
        fresh = not self.first_jobs and not self.first_counters and self._jobs.isdisjoint(ids)
        if self._has is _Has.COUNTERS or not fresh:
            await self.jobs(connection, sql, (), ids)
        rows = await self._lock(connection, sql, ids)
        if ids:
            self._has = _Has.COUNTERS
            self._counters.update(ids)
        return rows, len(self._rows) == before

    async def _lock(self, connection: Connection, sql: Statements, ids: Iterable[UUID]) -> list[Any]:
        """Wait for counters; those (id, need, open) that are there."""
        rows: list[Any] = await connection.fetch(sql["lock_blocked"], list(ids))
        self._rows.update(row[0] for row in rows)
        return rows

    def own_leases(self) -> None:
        """The caller has locked leases of its own."""
        self._has = max(self._has, _Has.LEASES)

    async def _wait(
        self,
        connection: Connection,
        sql: Statements,
        jobs: set[UUID],
        counters: set[UUID],
        own: tuple[UUID, Sequence[int] | None] | None,
    ) -> set[UUID]:
        ids = list(jobs)
        found = {row[0] for row in await connection.fetch(sql["hold_places"], ids)} if ids else set[UUID]()
        found |= {row[0] for row in await connection.fetch(sql["hold_leases"], ids, *(own or (None, None)))}
        found |= {row[0] for row in await self._lock(connection, sql, jobs | counters)}
        # What moved while this waited stands elsewhere now, or has ended.
        return await self._without_waiting(connection, sql, jobs - found, set())

    async def _without_waiting(
        self, connection: Connection, sql: Statements, jobs: set[UUID], counters: set[UUID]
    ) -> set[UUID]:
        """Those that could not be had so."""
        if not jobs and not counters:
            return set()
        rows = await connection.fetch(sql["hold_now"], list(jobs), list(counters))
        missed = {id for id, held in rows if not held}
        lost = jobs - {id for id, _ in rows}
        if lost and (still := [row[0] for row in await connection.fetch(sql["unfinished"], list(lost))]):
            # A job that stands nowhere and has no outcome is a row that somebody deleted or made up: nothing moves it.
            missed |= {id for id, held in await connection.fetch(sql["hold_now"], still, []) if not held}
        return missed
