"""The consumers: N slots, in each of which one attempt after the other runs, as a task of its own."""

from __future__ import annotations

import asyncio
import decimal
from contextvars import copy_context

import anyio

from flowrun.core.attempt import Attempted, Claimed, Ending
from flowrun.logs import Log
from flowrun.worker import forked, stacks, stubborn
from flowrun.worker.endings import Endings
from flowrun.worker.leftovers import Leftovers
from flowrun.worker.session import Session, Slot
from flowrun.worker.settler import Settler
from flowrun.worker.stubborn import Stubborn
from flowrun.worker.tasks import AttemptTask
from flowrun.worker.trials import MARK, Trials

logger = Log("flowrun.worker")

LOOK = 1.0
"""Seconds between two looks for what does not end (handlers that were cancelled, tasks they left behind), and for what
ended without a word."""
AGAIN = 5.0
"""Seconds after which a job runs again whose outcome could not be written."""


async def run(session: Session, settler: Settler) -> None:
    """Consume until cancelled."""
    consumers = Consumers(session, settler)
    try:
        await consumers.run()
    finally:
        with anyio.CancelScope(shield=True):
            await consumers.end()


class Consumers:
    """The slots, and the tasks in them.

    Nothing outlives an attempt in its slot: each has a task, and a copy of the context that the worker was started in.
    What a handler left in either (a cancellation, an open scope, a timer that will cancel, a variable, a decimal
    precision) is gone with it. The task that ends begins the next one, so a job costs no more than one turn of the
    loop. They are no children of a task group, which would wait for ever for a handler that swallows its cancellation.
    """

    def __init__(self, session: Session, settler: Settler) -> None:
        self._session = session
        self._settler = settler
        self._stubborn = Stubborn(session, self._replace)
        self._leftovers = Leftovers(session)
        self._endings = Endings(session)
        self._hooks = session.client.hooks if session.client.hooks.of_attempts else None
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._context.run(session.client.attempt.set, None)
        self._decimal: decimal.Context | None = None
        """What the program has set for its numbers: an object that each attempt could change for all others."""
        if any(variable.name == "decimal_context" for variable in self._context):
            self._decimal = self._context.run(decimal.getcontext).copy()
        self._idle = list(session.slots)
        self._ended = False
        self._trials = Trials(session, settler)

    async def run(self) -> None:
        """Consume, and look after what does not end."""
        forked.watch()
        self._session.buffer.serve = self._serve
        self._serve()
        while True:
            await anyio.sleep(LOOK)
            try:
                self._look()
            except Exception:
                logger.exception("looking after attempts failed; trying again")

    def _look(self) -> None:
        self._stubborn.look()
        self._leftovers.look()
        self._endings.look(self._answer_for)
        self._session.trouble = [*self._stubborn.trouble(), *self._leftovers.trouble(), *self._endings.trouble()]

    async def end(self) -> None:
        """Cancel all; a handler that does not end in time is left behind."""
        self._ended = True
        running = {slot.task: slot for slot in self._session.slots if slot.task is not None and slot.job is not None}
        for slot in [*running.values(), *(one.slot for one in self._session.left)]:
            if slot.task is not None:
                if slot.job is not None:
                    # Who asked for this end, and waits on, has failed: else it would do so again and again.
                    slot.job.given_back = not slot.job.swept
                slot.task.stop()
        _, stuck = await asyncio.wait(running, timeout=stubborn.STUBBORN) if running else (set(), set())
        for task in stuck:
            job = running[task].job
            if job is not None:
                logger.error(
                    "job %s (%s): its handler ignores its cancellation, %.0f s after it, and is left behind:\n%s",
                    job.id, job.type, stubborn.STUBBORN, stacks.of_task(task),
                )  # fmt: skip
                stubborn.quiet(job)
        self._leftovers.look(at_once=True)

    def _serve(self) -> None:
        """Begin as many jobs as there are slots with nothing to do."""
        buffer, idle = self._session.buffer, self._idle
        while idle and not self._ended and (job := buffer.take()) is not None:
            self._begin(idle.pop(), job)

    def _begin(self, slot: Slot, job: Claimed) -> None:
        slot.job = job
        slot.task = AttemptTask(self._attempt(slot, job), loop=self._loop, name=job.type, context=self._context.copy())

    async def _attempt(self, slot: Slot, job: Claimed) -> None:
        """Run one attempt, settle it, and begin the next in the same slot. Waits for nothing but the attempt."""
        if self._decimal is not None:
            decimal.setcontext(self._decimal.copy())
        if job.options is not None and MARK in job.options and not await self._trials.admitted(job):
            self._over(slot, job, None)
            self._free(slot)
            return
        if self._hooks is not None:
            self._hooks.started(job)
        try:
            attempted = await self._session.runner.run(job)
        except GeneratorExit as error:
            # A future that raises it ends every coroutine on the way here, by a rule of the language, but this one.
            if not _is_current(slot.task):
                raise  # the loop is gone, and this coroutine is thrown away
            attempted = self._session.runner.broke_off(job, error)
        if slot.job is job:  # else it was left behind
            self._over(slot, job, attempted)
            self._free(slot)

    def _answer_for(self, slot: Slot, ending: Ending | None) -> None:
        """A slot's task has ended and left it so; ``ending``: of the attempt that nobody else answers for."""
        if slot.job is not None and ending is not None:
            self._over(slot, slot.job, ending)
        self._free(slot)

    def _over(self, slot: Slot, job: Claimed, attempted: Attempted | None) -> None:
        """The job leaves its slot. None: its attempt has not begun, and it is handed back."""
        session = self._session
        slot.job = None
        try:
            if attempted is not None:
                if job.options is not None and MARK in job.options:
                    attempted = self._trials.ended(job, attempted)
                if self._hooks is not None:
                    self._hooks.attempted(job, attempted)
                self._settler.put(attempted)
        except Exception:
            # A codec of the program's that cannot encrypt: what the job came to cannot be written, nor why.
            logger.exception("job %s (%s): what it came to cannot be settled; it runs again", job.id, job.type)
            self._settler.put(Ending(job.id, job.lease, job.attempt, None, delay=AGAIN, attempts_used=job.attempt))
        session.buffer.finished()
        if job.place is not None:
            session.gates.left(job)
        if session.stopping and not session.buffer.running:
            session.drained.set()

    def _free(self, slot: Slot) -> None:
        """A slot has nothing to do: the next job begins in it, if there is one."""
        slot.job = slot.task = None
        job = None if self._ended else self._session.buffer.take()
        if job is not None:
            self._begin(slot, job)
        else:
            self._idle.append(slot)
            self._session.buffer.room_made.set()

    def _replace(self, slot: Slot, job: Claimed) -> None:
        """Settle an attempt without its handler, and give its place to another."""
        session = self._session
        ending = session.runner.left_behind(job)
        stubborn.quiet(job)
        number = session.slots.index(slot)
        session.slots[number] = Slot()
        if slot.task is not None:
            slot.task.add_done_callback(self._stubborn.ended)
        self._over(slot, job, ending)
        self._free(session.slots[number])


def _is_current(task: AttemptTask | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
