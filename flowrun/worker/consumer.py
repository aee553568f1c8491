"""The consumers: N tasks that take a job, run it, hand its outcome to the settler, and take the next."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

import anyio

from flowrun.core.attempt import Claimed
from flowrun.worker import stacks
from flowrun.worker.session import Session, Slot
from flowrun.worker.settler import Settler

logger = logging.getLogger("flowrun.worker")

UNSETTLED = 500
"""Jobs done but not yet settled after which a consumer lets others run: handlers that never wait never yield."""
STUBBORN = 5.0
"""Seconds a cancelled handler has to end before it is left behind."""
LOOK = 1.0
"""Seconds between two looks for handlers that were cancelled and do not end."""


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
        self._asked: dict[Slot, tuple[Claimed, float]] = {}
        """The job that was asked to stop in a slot, and since when that is known."""
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Consume, and look after those that do not end. Raises what ended a consumer, which nothing should."""
        for number, slot in enumerate(self._session.slots):
            self._start(number, slot)
        while not self._broken.done():
            await asyncio.wait([self._broken], timeout=LOOK)
            self._look()
        self._broken.result()

    async def end(self) -> None:
        """Cancel all; a handler that does not end in time is left behind."""
        left = {slot.task: slot for slot in self._session.left if slot.task is not None}
        tasks = {slot.task: slot for slot in self._session.slots if slot.task is not None}
        for task in [*tasks, *left]:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=STUBBORN) if tasks else (set(), set())
        for task in stuck:
            slot = tasks[task]
            if slot.job is not None:
                logger.error(
                    "job %s (%s): its handler ignores its cancellation, %.0f s after it, and is left behind:\n%s",
                    slot.job.id, slot.job.type, STUBBORN, stacks.of_task(task),
                )  # fmt: skip
                _quiet(slot.job)

    def _start(self, number: int, slot: Slot) -> None:
        consuming = _consume(self._session, self._settler, slot)
        slot.task = asyncio.get_running_loop().create_task(consuming, name=f"flowrun-consumer-{number}")
        slot.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for slot in self._session.left:
            if slot.task is task:
                self._session.left.remove(slot)
                logger.warning("a handler that was left behind has ended; what it came to is refused")
                if not task.cancelled():
                    task.exception()  # seen
                return
        if not task.cancelled() and (error := task.exception()) is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _look(self) -> None:
        now = monotonic()
        asked: dict[Slot, tuple[Claimed, float]] = {}
        for slot in list(self._session.slots):
            job = slot.job
            if job is None or job.over or slot.task is None:
                continue
            if job.interrupted or (job.scope is not None and job.scope.cancel_called):
                before = self._asked.get(slot)
                since = before[1] if before is not None and before[0] is job else now
                if now - since < STUBBORN:
                    asked[slot] = (job, since)
                else:
                    self._leave_behind(slot, slot.task, job, now - since)
        self._asked = asked
        for call in self._session.threads.left:
            if not call.reported and now - call.left_at >= STUBBORN and call.thread is not None:
                call.reported = True
                logger.error(
                    "job %s (%s): its thread still runs, %.0f s after its attempt was over; no thread can be "
                    "interrupted:\n%s",
                    call.job.id, call.job.type, now - call.left_at, stacks.of_thread(call.thread),
                )  # fmt: skip

    def _leave_behind(self, slot: Slot, task: asyncio.Task[None], job: Claimed, seconds: float) -> None:
        """Settle the attempt without its handler, and give its place to another consumer."""
        session = self._session
        logger.error(
            "job %s (%s): its handler ignores its cancellation, %.0f s after it; it is left behind, and what it comes "
            "to is refused (%d such now):\n%s",
            job.id, job.type, seconds, len(session.left) + 1, stacks.of_task(task),
        )  # fmt: skip
        ending = session.runner.left_behind(job)
        _quiet(job)
        slot.job = None
        session.left.append(slot)
        number = session.slots.index(slot)
        session.slots[number] = Slot()
        self._start(number, session.slots[number])
        if session.client.hooks.of_attempts:
            session.client.hooks.attempted(job, ending)
        self._settler.put(ending)
        _free(session)


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
        _free(session)
        if settler.pending > UNSETTLED:
            await asyncio.sleep(0)


def _free(session: Session) -> None:
    """A job has left its consumer."""
    session.buffer.finished()
    if session.stopping and not session.buffer.running:
        session.drained.set()


def _is_current(task: asyncio.Task[None] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False


def _quiet(job: Claimed) -> None:
    """Cancel the handler no more: anyio does so in every turn of the loop, which a stubborn one makes a busy loop."""
    handle = getattr(job.scope, "_cancel_handle", None)
    if handle is not None:
        handle.cancel()
