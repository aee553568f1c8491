"""``app.failed``: the dead letter, jobs that failed for good, with all that is needed to run them again."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowrun import codec
from flowrun.client import bulk, control
from flowrun.client.listing import as_filter, as_id, most
from flowrun.core.states import Kind
from flowrun.errors import NotFound
from flowrun.sealing import shown
from flowrun.sealing.rows import callback_of, shown_args
from flowrun.store import reads
from flowrun.store.bulk import By

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
            self._client.database, None, type, queue, tag, error, as_filter(flow), since, until, most(limit)
        )
        return [self._shown(row) for row in rows]

    async def get(self, id: UUID | str) -> FailedJob:
        """One of them. Raises NotFound."""
        nothing = [None] * 7
        rows = await reads.list_failed(self._client.database, as_id(id), *nothing, 1)
        if not rows:
            raise NotFound(f"no failed job {id} is stored: it may have been retried or discarded")
        return self._shown(rows[0])

    async def retry(
        self,
        id: UUID | str,
        *,
        args: Mapping[str, Any] | None = None,
        drop: Sequence[str] = (),
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Run it again, with all its attempts, and with other arguments if ``args`` are given; in a flow, also what it
        had skipped. Arguments named by ``drop`` are taken out: its handler may not have them any more.

        Raises NotFound, NotPossible if it has not failed, and InvalidArguments where its handler is known here and does
        not take the arguments.

            await app.failed.retry(job.id, args={"order_id": 42, "token": "new"})
        """
        job = await self._client.get_job(as_id(id))
        await job.retry(args=args, drop=drop, actor=actor, reason=reason)

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
        drop: Sequence[str] = (),
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Run all again that a list with the same filters has, in batches; the ids of those that run again.

        One that cannot (its flow was compensated) is left out. ``args`` replace arguments of each, those named
        by ``drop`` are taken out. ``dry_run``: change nothing. Raises InvalidArguments, before anything is done, where
        a handler is known here that does not take the arguments.

            ids = await app.failed.retry_all(error="TimeoutError", dry_run=True)
        """
        found = await self._pick(type, queue, tag, error, flow, since, until)
        for known in {row[2] for row in found}:
            self._client.edited(known, args, drop)
        if dry_run:
            return [row[0] for row in found]
        return await bulk.retry(self._client, found, args, drop, By(actor, reason))

    async def discard_all(
        self,
        *,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        flow: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        every: bool = False,
        dry_run: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> builtins.list[UUID]:
        """Take all out of the list that a list with the same filters has; their ids. They stay failed.

        Without any filter only with ``every=True``, else ConfigurationError.

            await app.failed.discard_all(type="old_report", reason="nobody needs them")
        """
        if not every:
            given = {"type": type, "queue": queue, "tag": tag, "error": error, "flow": flow}
            bulk.filtered("app.failed.discard_all", **given, since=since, until=until, every=None)
        found = [row[0] for row in await self._pick(type, queue, tag, error, flow, since, until)]
        for start in range(0, 0 if dry_run else len(found), bulk.BATCH):
            await control.discard(self._client, found[start : start + bulk.BATCH], By(actor, reason))
        return found

    def _shown(self, row: dict[str, Any]) -> FailedJob:
        sealing, id = self._client.sealing, row["id"]
        row["args"] = shown_args(sealing, Kind.HANDLER, row["args"], id, callback_of(row["options"]))
        row["options"] = codec.look_into(row["options"])
        row["message"] = sealing.shown_text(row["message"], id, "error")
        row["traceback"] = sealing.shown_text(row["traceback"], id, "traceback")
        row["detail"] = shown.detail(sealing, row["detail"], id)
        return FailedJob(**row)

    async def _pick(
        self,
        type: str | None,
        queue: str | None,
        tag: str | None,
        error: str | None,
        flow: UUID | str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> builtins.list[Any]:
        return await reads.picked(
            self._client.database,
            "pick_ended",
            "failed",
            type,
            queue,
            tag,
            error,
            as_filter(flow),
            None,
            None,
            since,
            until,
            bulk.ALL,
        )

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
        wanted = [as_id(id) for id in given]
        return await control.discard(self._client, wanted, By(actor, reason))
