"""``app.failed``: the dead letter, jobs that failed for good, with all that is needed to run them again."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowrun import codec
from flowrun.client import control
from flowrun.client.listing import as_id, most
from flowrun.errors import NotFound, NotPossible
from flowrun.store import reads
from flowrun.store.control import By

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed for good and was neither retried nor discarded."""

    connection: str
    """Always ``"default"`` as yet."""
    queue: str
    type: str
    id: UUID
    flow_id: UUID | None
    name: str | None
    """Of the node, in a flow."""
    args: Mapping[str, Any]
    """Its arguments, as stored."""
    priority: int
    options: Mapping[str, Any]
    """What else it was dispatched with, as stored."""
    attempt: int
    """The last one's number."""
    error_type: str | None
    message: str | None
    detail: Mapping[str, Any]
    """What else the exception told: its ``notes``, its ``cause``, what it has by the name ``detail``."""
    traceback: str | None
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    failed_at: datetime


class FailedJobs:
    """``app.failed``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        flow: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> builtins.list[FailedJob]:
        """Jobs that failed for good, the last first. ``error``: the exception's type, its last part is enough.

        ``since`` and ``until``: when they failed; ``flow``: the flow they are nodes of, at any depth.

            for job in await app.failed.list(type="charge_payment", error="TimeoutError"):
                print(job.failed_at, job.args, job.message)
        """
        rows = await reads.list_failed(
            self._client.database, None, type, queue, tag, error, as_id(flow), since, until, most(limit)
        )
        return [_failed(row) for row in rows]

    async def get(self, id: UUID | str) -> FailedJob:
        """One of them. Raises NotFound."""
        nothing = [None] * 7
        rows = await reads.list_failed(self._client.database, as_id(id), *nothing, 1)
        if not rows:
            raise NotFound(f"no failed job {id} is stored: it may have been retried or discarded")
        return _failed(rows[0])

    async def retry(
        self,
        id: UUID | str,
        *,
        args: Mapping[str, Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Run it again, with all its attempts, and with other arguments if ``args`` are given; in a flow, also what it
        had skipped.

        Raises NotFound, or NotPossible if it has not failed.

            await app.failed.retry(job.id, args={"order_id": 42, "token": "new"})
        """
        job = await self._client.get_job(as_id(id) or UUID(int=0))
        await job.retry(args=args, actor=actor, reason=reason)

    async def retry_all(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        flow: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        args: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        limit: int = 10_000,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Run all again that a list with the same filters has; the ids of those that run again.

        Each is retried by itself; one that cannot be (its flow was compensated) is left out. ``dry_run``: change
        nothing.

            ids = await app.failed.retry_all(error="TimeoutError", dry_run=True)
        """
        found = await self.list(
            type=type, queue=queue, tag=tag, error=error, flow=flow, since=since, until=until, limit=limit
        )
        done: builtins.list[UUID] = []
        for job in found:
            if not dry_run:
                try:
                    await self.retry(job.id, args=args, actor=actor, reason=reason)
                except (NotFound, NotPossible):
                    continue
            done.append(job.id)
        return done

    async def discard(
        self,
        ids: UUID | str | Sequence[UUID | str],
        /,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Take one or several out of the list; they stay failed. How many were in it.

        await app.failed.discard(job.id, actor="ann", reason="paid by hand")
        """
        given = [ids] if isinstance(ids, UUID | str) else ids
        wanted = [one for id in given if (one := as_id(id)) is not None]
        return await control.discard(self._client, wanted, By(actor, reason))


def _failed(row: dict[str, Any]) -> FailedJob:
    for name in ("args", "options", "detail"):
        row[name] = codec.load(row[name] or "{}")
    return FailedJob(**row)
