"""The consumers: N tasks that take a job, run it, hand its outcome to the settler, and take the next."""

from __future__ import annotations

import asyncio
import logging

import anyio

from flowrun.core.attempt import Claimed
from flowrun.worker import stacks, stubborn
from flowrun.worker.leftovers import CONSUMERS, Leftovers
from flowrun.worker.session import Session, Slot
from flowrun.worker.settler import Settler
from flowrun.worker.stubborn import Stubborn

logger = logging.getLogger("flowrun.worker")

UNSETTLED = 500
"""Jobs done but not yet settled after which a consumer lets others run: handlers that never wait never yield."""
LOOK = 1.0
"""Seconds between two looks for what does not end: handlers that were cancelled, tasks they left behind."""


async def run(session: Session, settler: Settler) -> None:
    """Consume until cancelled."""
    consumers = Consumers(session, settler)
    try:
        await consumers.run()
    finally:
        with anyio.CancelScope(shield=True):
            await consumers.end()


class Consumers:
    """The tasks, each in its slot.

    They are tasks of their own rather than children of a task group, so that a handler that swallows its cancellation
    can be left behind: a group would wait for it for ever.
    """

    def __init__(self, session: Session, settler: Settler) -> None:
        self._session = session
        self._settler = settler
        self._stubborn = Stubborn(session, self._replace)
        self._leftovers = Leftovers(session)
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Consume, and look after what does not end. Raises what ended a consumer, which nothing should."""
        for number, slot in enumerate(self._session.slots):
            self._start(number, slot)
        while not self._broken.done():
            await asyncio.wait([self._broken], timeout=LOOK)
            self._stubborn.look()
            self._leftovers.look()
            self._session.trouble = [*self._stubborn.trouble(), *self._leftovers.trouble()]
        self._broken.result()

    async def end(self) -> None:
        """Cancel all; a handler that does not end in time is left behind."""
        left = [one.slot.task for one in self._session.left if one.slot.task is not None]
        tasks = {slot.task: slot for slot in self._session.slots if slot.task is not None}
        for task in [*tasks, *left]:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=stubborn.STUBBORN) if tasks else (set(), set())
        for task in stuck:
            slot = tasks[task]
            if slot.job is not None:
                logger.error(
                    "job %s (%s): its handler ignores its cancellation, %.0f s after it, and is left behind:\n%s",
                    slot.job.id, slot.job.type, stubborn.STUBBORN, stacks.of_task(task),
                )  # fmt: skip
                stubborn.quiet(slot.job)
        self._leftovers.look(at_once=True)

    def _start(self, number: int, slot: Slot) -> None:
        consuming = _consume(self._session, self._settler, slot)
        slot.task = asyncio.get_running_loop().create_task(consuming, name=f"flowrun-consumer-{number}")
        CONSUMERS.add(slot.task)
        slot.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._stubborn.ended(task):
            return
        if not task.cancelled() and (error := task.exception()) is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _replace(self, slot: Slot, job: Claimed) -> None:
        """Settle an attempt without its handler, and give its place to another consumer."""
        session = self._session
        ending = session.runner.left_behind(job)
        stubborn.quiet(job)
        slot.job = None
        number = session.slots.index(slot)
        session.slots[number] = Slot()
        self._start(number, session.slots[number])
        if session.client.hooks.of_attempts:
            session.client.hooks.attempted(job, ending)
        self._settler.put(ending)
        _free(session, job)


async def _consume(session: Session, settler: Settler, slot: Slot) -> None:
    buffer, run_job, put = session.buffer, session.runner.run, settler.put
    hooks = session.client.hooks if session.client.hooks.of_attempts else None
    while True:
        slot.job = job = buffer.take() or await buffer.wait()
        if hooks is not None:
            hooks.started(job)
        try:
            attempted = await run_job(job)
        except GeneratorExit as error:
            # A future that raises it ends every coroutine on the way here, by a rule of the language, but this one.
            if not _is_current(slot.task):
                raise  # the loop is gone, and this coroutine is thrown away
            attempted = session.runner.broke_off(job, error)
        if slot.job is not job:
            return  # it was left behind
        if hooks is not None:
            hooks.attempted(job, attempted)
        put(attempted)
        slot.job = None
        _free(session, job)
        if settler.pending > UNSETTLED:
            await asyncio.sleep(0)


def _free(session: Session, job: Claimed) -> None:
    """A job has left its consumer."""
    session.buffer.finished()
    if job.place is not None:
        session.gates.left(job)
    if session.stopping and not session.buffer.running:
        session.drained.set()


def _is_current(task: asyncio.Task[None] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
