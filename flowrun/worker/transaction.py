"""A handler's own transaction, in which its job can be settled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from flowrun import crash
from flowrun.client.control import tell
from flowrun.client.dispatch import Client
from flowrun.client.outbox import AttemptOutbox
from flowrun.client.shield import shielded
from flowrun.core.attempt import Claimed, Ending
from flowrun.core.states import Outcome
from flowrun.errors import FlowrunError, LeaseLost, NotStorable
from flowrun.shapes import Misfit, not_stored
from flowrun.store import settle
from flowrun.store.finish import Settled
from flowrun.store.pool import LOST
from flowrun.store.settle import Leases

if TYPE_CHECKING:
    from types import TracebackType


class JobTransaction:
    """What ``job.transaction()`` gives. See :class:`flowrun.context.Transaction`."""

    def __init__(self, client: Client, job: Claimed, worker: tuple[UUID, str], max_payload: int) -> None:
        self._client = client
        self._job = job
        self._worker = worker
        self._max_payload = max_payload
        self._acquired: Any = None
        self._transaction: Any = None
        self._settled: Settled | None = None
        self.connection: Any = None

    async def __aenter__(self) -> Self:
        self._acquired = self._client.database.acquire()
        self.connection = await self._acquired.__aenter__()
        try:
            self._transaction = self.connection.transaction(isolation="read_committed")
            await shielded(self._transaction.start())
        except BaseException:
            await self._release()
            raise
        return self

    async def complete(self, result: Any = None) -> None:
        """Settle the job in this transaction."""
        job = self._job
        if self._settled is not None:
            raise FlowrunError("complete() was called before in this transaction: a job is settled once")
        definition = self._client.registry.get(job.type)
        try:
            text = definition.returned.dump(result, limit=self._max_payload)
        except Misfit as error:
            raise NotStorable(error.path, not_stored(error)) from None
        more = None
        if isinstance(job.outbox, AttemptOutbox):
            more = job.outbox.sealed()
            job.outbox.close()
        grows = None if more is None else more.grows
        text = self._client.sealing.json(text, job.id, "result")
        ending = Ending(job.id, job.lease, job.attempt, Outcome.SUCCEEDED, text, more=more, flow_id=grows)
        settled = await settle.settle_in(
            self.connection,
            self._client.database.sql,
            worker_id=self._worker[0],
            worker=self._worker[1],
            endings=[ending],
            leases=Leases([job.lease], []),
        )
        if job.id not in settled.ids:
            raise LeaseLost(f"job {job.type!r} ({job.id}) is not this worker's any more: nothing of it is committed")
        self._settled = settled

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        crash.point("transaction.before end")
        # Cancelled inside a transaction, asyncpg under anyio skips the rollback: neither end of it is cut.
        try:
            await shielded(self._transaction.rollback() if error is not None else self._commit())
        except BaseException:
            with suppress(*LOST):  # one that broke by itself is not ours any more
                self.connection.terminate()
            await self._release()
            if error is None:
                raise
        else:
            crash.point("transaction.ended")
            settled = self._settled if error is None else None
            if settled is not None:
                self._job.settled = self._job.over = True
            await self._release()
            if settled is not None:
                tell(self._client, settled)

    async def _commit(self) -> None:
        """Commit, or raise: of a transaction that has failed, the server makes a rollback and says nothing."""
        if not self.connection.is_in_transaction():
            raise FlowrunError("the handler has ended the transaction itself: leave job.transaction() to commit")
        await self.connection.execute("select")
        await self._transaction.commit()

    async def _release(self) -> None:
        await shielded(self._client.database.clean(self.connection))
        await shielded(self._acquired.__aexit__(None, None, None))
