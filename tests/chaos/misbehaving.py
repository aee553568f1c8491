"""Handlers that harm: they cancel themselves and others, leave things behind, and end their worker. They harm no other job."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from random import Random
from typing import Any

from flowrun import Flowrun, Job, Snooze, backoff
from tests.chaos.journal import Journal

TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""Set by each and never taken back: the next attempt has to find it unset."""
PROGRAM = "program"
"""How the tasks of the worker's program are called: what becomes of them is not flowrun's."""
GUARDED = importlib.util.find_spec("flowrun.guarded") is not None
"""Whether this version of flowrun withstands them; an older one, beside the newer, is not tried."""


class Vicious(Exception):
    """Ends the program of whoever prints it."""

    def __str__(self) -> str:
        raise SystemExit(7)


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def forget_a_timer() -> None:
    """A timer that will cancel a task that has another job by then, if tasks were used again."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.05, task.cancel)


async def swallow() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        raise ValueError("as written") from None


async def sweep() -> None:
    """All tasks of the process but the program's own, as more than one library does."""
    for task in asyncio.all_tasks():
        if task.get_name() != PROGRAM:
            task.cancel()
    await asyncio.sleep(0)


async def stop_the_loop() -> None:
    raise Vicious


async def leave_the_program() -> None:
    raise SystemExit(3)


WAYS: list[Callable[[], Awaitable[None]]] = [
    cancel_itself, forget_a_timer, swallow, stop_the_loop, leave_the_program, cancel_itself, forget_a_timer, sweep,
]  # fmt: skip


def way(number: int) -> Callable[[], Awaitable[None]]:
    """How the job of a number misbehaves."""
    return Random(number).choice(WAYS)


def register(app: Flowrun, journal: Journal, told: Callable[[Journal, Callable[..., Any]], Any]) -> None:
    @app.handler("misbehaving", attempts=8, backoff=backoff.constant(0.05))
    @partial(told, journal)
    async def misbehaving(job: Job, number: int) -> None:
        if TENANT.get() is not None:
            journal.write("leaked", job=str(job.id), of=TENANT.get())
        TENANT.set(str(job.id))
        if job.attempt <= 2 and GUARDED:
            await way(number)()

    @app.handler("poison", attempts=4)
    @partial(told, journal)
    async def poison(job: Job, number: int) -> None:
        if not GUARDED:
            raise Snooze(0.3)
        journal.write("kills itself", job=str(job.id))
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(3600)
