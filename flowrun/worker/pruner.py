"""Removing what is kept no longer, a little at a time. Workers take turns: see store/prune.py."""

from __future__ import annotations

import random

import anyio

from flowrun.client.shield import shielded
from flowrun.logs import Log
from flowrun.store import prune
from flowrun.store.pool import Connection
from flowrun.store.prune import Step
from flowrun.worker.session import Session

logger = Log("flowrun.worker")

PRUNING = "prune"
FIRST = 5.0
"""Seconds after its start before which a worker prunes nothing."""
TURN = 30.0
"""Seconds between two looks whether it is this worker's turn, about."""


async def run(session: Session) -> None:
    """Prune until cancelled."""
    client = session.client

    async def verb(connection: Connection) -> Step | None:
        return await prune.step(connection, client.database.sql)

    pause = FIRST + _some(TURN)
    while True:
        await anyio.sleep(pause)
        try:
            # Not sent again after a lost connection: the next turn does it.
            done = await shielded(client.database.repeat(verb, safe=False))
        except Exception as error:  # noqa: BLE001 - whatever it is: it passes, and others take their turns
            session.troubles.met(PRUNING, error)
            done = None
        else:
            session.troubles.over(PRUNING)
        pause = TURN / 2 + _some(TURN) if done is None or done.pause >= TURN else done.pause
        if done is not None and any(done.removed):
            logger.info("pruned %d job(s) and %d flow(s)", len(done.removed.jobs), len(done.removed.flows))


def _some(seconds: float) -> float:
    return random.uniform(0.0, seconds)  # noqa: S311 - so that many workers do not look at the same moment
