"""The consumers: N tasks that take a job, run it, hand its outcome to the settler, and take the next."""

from __future__ import annotations

import asyncio
import logging

import anyio

from flowrun.worker.session import Session, Slot
from flowrun.worker.settler import Settler

logger = logging.getLogger("flowrun.worker")

UNSETTLED = 500
"""Jobs done but not yet settled after which a consumer lets others run: handlers that never wait never yield."""
STUBBORN = 5.0
"""Seconds a cancelled handler has to end before it is left behind."""


async def run(session: Session, settler: Settler) -> None:
    """Consume until cancelled.

    The consumers are tasks of their own rather than children of a task group, so that a handler that swallows its
    cancellation can be left behind: a group would wait for it for ever.
    """
    loop = asyncio.get_running_loop()
    for number, slot in enumerate(session.slots):
        slot.task = loop.create_task(_consume(session, settler, slot), name=f"flowrun-consumer-{number}")
    tasks = [slot.task for slot in session.slots if slot.task is not None]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(tasks)


async def _consume(session: Session, settler: Settler, slot: Slot) -> None:
    buffer, run_job, put = session.buffer, session.runner.run, settler.put
    hooks = session.client.hooks if session.client.hooks.of_attempts else None
    while True:
        slot.job = job = await buffer.take()
        if hooks is None:
            put(await run_job(job))
        else:
            hooks.started(job)
            attempted = await run_job(job)
            hooks.attempted(job, attempted)
            put(attempted)
        slot.job = None
        buffer.finished()
        if session.stopping and not buffer.running:
            session.drained.set()
        if settler.pending > UNSETTLED:
            await asyncio.sleep(0)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    _, stuck = await asyncio.wait(tasks, timeout=STUBBORN)
    for task in stuck:
        logger.error("a handler ignores its cancellation and is left behind: %s", task.get_stack(limit=1))
