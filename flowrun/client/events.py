"""What happens in a flow, told as it happens, from the database: whoever does it, on whatever machine.

No row is written for it: every event is a row that is there anyway. Each look reads all that is known of the flow, so
a commit that comes later than its own time says is not missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from flowrun.errors import FlowrunError, NotFound
from flowrun.sealing import shown
from flowrun.store import reads

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

SHORTEST = 0.05
"""Seconds between two looks while things move."""
LONGEST = 1.0
"""Seconds between two looks while nothing does."""
SHARE = 10
"""Looking takes the server at most one part in so many of the time."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a flow.

    async for event in run.events():
        print(event.at, event.kind, event.name, event.message)
    """

    kind: str
    """flow_started, job_started, attempt_failed, job_succeeded, job_failed, job_cancelled, job_skipped, progress,
    gate_opened, flow_finished; or what an operator did: cancel, retry, resolve, skip, signal, add. Of progress and of
    open gates only what is so when it is looked at is told."""
    at: datetime
    job_id: UUID | None
    """The job concerned, if one is."""
    flow_id: UUID
    """The innermost flow it is a node of."""
    name: str | None
    """The node's name."""
    type: str | None
    attempt: int | None
    error_type: str | None
    message: str | None
    """The error; why it was skipped or cancelled; of progress what was said; of ``flow_finished`` the flow's state."""
    progress: float | None


async def events(client: Client, flow_id: UUID) -> AsyncIterator[Event]:
    """The events of a flow, each once, those before now first; ends with the flow."""
    seen: set[tuple[str, UUID | None, int | None, datetime]] = set()
    pause, over = SHORTEST, False
    while True:
        # The server's time counts, not this loop's: who is busy with other things waits long enough.
        rows, cost = await reads.flow_events(client.database, flow_id)
        if not rows:
            raise NotFound(f"no flow {flow_id} is stored")
        told = (Event(**shown.event(client.sealing, row)) for row in rows)
        fresh = [event for event in told if _key(event) not in seen]
        seen.update(map(_key, fresh))
        for event in fresh:
            yield event
        # Once more after the end was seen: what was committed before it may have come into sight after this look began.
        if over and not fresh:
            return
        over = any(row["kind"] == "flow_finished" for row in rows)
        if not over:
            pause = SHORTEST if fresh else min(pause * 2, LONGEST)
            await _pause(client, flow_id, max(pause, cost * SHARE))


async def _pause(client: Client, flow_id: UUID, seconds: float) -> None:
    """Until the flow has ended, or so long."""
    try:
        await client.waits.wait(flow_id, seconds)
    except TimeoutError:
        pass
    except FlowrunError:  # who looks next meets it too, if it matters there
        await asyncio.sleep(seconds)


def _key(event: Event) -> tuple[str, UUID | None, int | None, datetime]:
    return event.kind, event.job_id, event.attempt, event.at
