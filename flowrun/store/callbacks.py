"""Dispatching what is to run because a job has failed, in the transaction that records the failure."""

from __future__ import annotations

from flowrun import mint
from flowrun.core.callback import Calls
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


async def call_back(connection: Connection, sql: Statements, settled: Settled, calls: Calls) -> None:
    """Dispatch what ``calls`` says for the jobs that failed in this transaction. The caller holds it."""
    wanted = [(failed.id, call) for failed in settled.failed if (call := calls(failed)) is not None]
    if wanted:
        ids = [mint.job_id() for _ in wanted]
        columns = map(list, zip(*(call for _, call in wanted), strict=True))
        settled.read(await connection.fetch(sql["call_back"], ids, [id for id, _ in wanted], *columns))
