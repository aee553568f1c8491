"""What people ask of jobs and flows that are dispatched: done in the database, then told to whom it concerns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from flowrun import codec
from flowrun.client.shield import shielded
from flowrun.core.growth import Growth
from flowrun.core.options import check_name
from flowrun.core.states import Outcome
from flowrun.errors import InvalidArguments
from flowrun.shapes import Misfit, not_stored
from flowrun.store import control
from flowrun.store.bulk import By
from flowrun.store.control import Cancelled
from flowrun.store.edits import Edit
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

T = TypeVar("T")


async def cancel(client: Client, id: UUID, by: By, *, compensate: bool = True) -> Cancelled:
    """Cancel a job or a flow."""
    sql = client.database.sql
    return await do(
        client, lambda connection, settled: control.cancel_job(connection, sql, id, by, settled, compensate=compensate)
    )


async def signal(client: Client, flow: UUID, name: str, value: Any, by: By) -> bool:
    """Send a signal to a flow."""
    check_name("a signal", name)
    try:
        codec.dump(value, limit=client.settings.max_payload)
    except codec.NotStorable as error:
        raise InvalidArguments(f"the value of signal {name!r} cannot be stored: {error}") from None
    sql = client.database.sql
    sealing = client.sealing
    return await do(
        client, lambda connection, settled: control.signal(connection, sql, flow, name, value, by, settled, sealing)
    )


async def add(client: Client, growth: Growth, by: By) -> dict[UUID, str]:
    """Add nodes to an open flow; their names by id."""
    sql = client.database.sql
    return await do(client, lambda connection, settled: control.add(connection, sql, growth, by, settled))


async def retry(client: Client, flow: UUID, args: Mapping[UUID, Edit], by: By) -> int:
    """Run a flow's failed jobs again, with arguments to replace by job; how many there were."""
    sql = client.database.sql
    return await do(client, lambda connection, settled: control.retry(connection, sql, flow, args, by, settled))


async def retry_job(client: Client, id: UUID, args: Edit | None, by: By) -> None:
    """Run one job again, with arguments to replace."""
    sql = client.database.sql
    await do(client, lambda connection, settled: control.retry_job(connection, sql, id, args, by, settled))


async def decide(client: Client, id: UUID, type: str, outcome: Outcome, result: Any, by: By) -> None:
    """Give a job its outcome by hand."""
    sql = client.database.sql
    try:
        text = client.written_result(type, result) if outcome is Outcome.SUCCEEDED else None
    except (codec.NotStorable, Misfit) as error:
        raise InvalidArguments(not_stored(error)) from None
    if text is not None:
        text = client.sealing.json(text, id, "result")
    await do(client, lambda connection, settled: control.decide(connection, sql, id, outcome, text, by, settled))


async def discard(client: Client, ids: Sequence[UUID], by: By) -> int:
    """Take jobs out of the dead letter; how many were in it."""
    sql = client.database.sql
    return await do(client, lambda connection, _: control.discard(connection, sql, ids, by))


async def do(client: Client, verb: Callable[[Connection, Settled], Awaitable[T]]) -> T:
    """Run ``verb`` in a transaction of its own, again where nothing was done, and tell whom it concerns."""
    settled = Settled()

    async def once(connection: Connection) -> T:
        nonlocal settled
        settled = Settled()
        return await verb(connection, settled)

    answer = await shielded(client.database.repeat(once, safe=False))
    tell(client, settled)
    return answer


def tell(client: Client, settled: Settled) -> None:
    """Wake whoever waits for what was done outside a worker's own settling."""
    notifier = client.notifier
    notifier.wake(settled.queues, scheduled=settled.scheduled)
    if settled.interrupt:
        notifier.interrupt(settled.interrupt)
    if settled.ids:
        client.waits.settled(settled.ids)
        notifier.done(settled.ids)
        client.hooks.settled(settled.ids)
