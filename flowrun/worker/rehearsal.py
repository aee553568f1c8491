"""For tests: work until nothing is runnable, and time that passes when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from flowrun import crash
from flowrun.client.dispatch import Client
from flowrun.core.compile import TYPES
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.core.states import Outcome
from flowrun.errors import ConfigurationError
from flowrun.store import rehearse

_BRIEFLY = 0.005
"""Seconds between two looks at what is left."""
_CALM, _ELSEWHERE = 0.15, 2.0
"""Seconds for which what runs may run on before time is moved on: whoever waits then, waits for time. Longer, where it
is no handler of this process that runs: it may just be about to be settled."""
_OVERDUE = 2.0
"""Seconds for which what is overdue is waited for: it may never happen, as a tick that cannot be dispatched."""
_POINTS = (
    "settle.begun",
    "settle.left",
    "settle.written",
    "settle.sent",
    "settle.before commit",
    "tick.written",
)
_STATES = ("running", "ready", "due")


@dataclass(frozen=True, slots=True)
class Drained:
    """How many handlers' jobs ended during a drain, in whatever process."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def jobs(self) -> int:
        """All of them."""
        return self.succeeded + self.failed + self.cancelled + self.skipped


class Rehearsal:
    """Works off what is runnable, with the workers of this process, or with one of its own while it lasts."""

    def __init__(
        self, client: Client, queues: Callable[[], list[str]], worker: Callable[..., AbstractAsyncContextManager[Any]]
    ) -> None:
        self._client = client
        self._queues = queues
        self._worker = worker

    async def drain(self, timeout: float) -> Drained:
        """See ``app.drain``."""
        database = self._client.database
        async with AsyncExitStack() as stack:
            if not self._client.notifier.hasten:
                await stack.enter_async_context(self._worker(grace=0.0))
            since = await rehearse.now(database)
            until = monotonic() + timeout
            while left := await self._left():
                if monotonic() >= until:
                    raise TimeoutError(f"after {timeout:g} s there is still something {_named(left)}")
                await asyncio.sleep(_BRIEFLY)
            ended = await rehearse.ended_since(database, since)
        return Drained(*(ended.get(outcome, 0) for outcome in Outcome))

    async def calm(self, timeout: float) -> None:
        """Wait until nothing is ready or due; what runs has a moment to end, or waits for time to be moved on."""
        until = monotonic() + timeout
        calm_since = monotonic()
        before: list[tuple[int, str, int]] = []
        while left := await self._left():
            now = monotonic()
            if left != before or any(state != 0 for state, _, _ in left):
                before, calm_since = left, now
            here = sum(hasten(0.0) for hasten in self._client.notifier.hasten)
            if now - calm_since >= (_CALM if here >= sum(count for _, _, count in left) else _ELSEWHERE):
                return
            if now >= until:
                raise TimeoutError(f"after {timeout:g} s there is still something {_named(left)}")
            await asyncio.sleep(_BRIEFLY)

    async def _left(self) -> list[tuple[int, str, int]]:
        types = [*(definition.type for definition in self._client.registry), *TYPES.values()]
        return await rehearse.runnable(self._client.database, types, [*self._queues(), SYSTEM_QUEUE])


class Testing:
    """Virtual time: it goes on as always, and :meth:`advance` moves it on besides.

    What is stored to happen at a moment (delays, ``run_at``, backoff, gates, ``start_by``, deadlines, keys, rates) and
    the timeouts of attempts that run in this process come so much nearer; schedules are told what moment it is.
    """

    def __init__(self, client: Client, rehearsal: Rehearsal, clock: datetime | None) -> None:
        self._client = client
        self._rehearsal = rehearsal
        client.ahead = timedelta(0) if clock is None else clock - datetime.now(UTC)
        self._armed: list[str] = []

    @property
    def now(self) -> datetime:
        """The moment it is, in UTC."""
        return datetime.now(UTC) + self._client.ahead

    async def advance(self, seconds: float, *, timeout: float = 10.0) -> None:
        """Let ``seconds`` pass, moment by moment: what is due on the way has its turn before time goes on, for at most
        ``timeout`` real seconds each; TimeoutError otherwise.

        Example::

            async with app.testing() as t:
                run = await remind.job(to="ann").options(delay=3600.0).dispatch()
                await t.advance(3600)
                await run.result(timeout=10)
        """
        if isinstance(seconds, bool) or not 0 <= seconds < 1e10:
            raise ConfigurationError(f"seconds must be a number from 0 on; got {seconds!r}")
        await self._rehearsal.calm(timeout)
        left = float(seconds)
        while True:
            next_in = await self._next_moment()
            step = left if next_in is None or next_in <= 0 else min(left, next_in + 0.001)
            await self._move(step)
            left -= step
            await self._next_moment()
            await self._rehearsal.calm(timeout)
            if left <= 0:
                return

    def crash_at(self, point: str, *, time: int = 1) -> None:
        """Cut this process off its database when it comes to a point for the ``time``-th time from now on: the
        transaction is rolled back, and what it was about is done again.

        ``"settle.begun"``, ``"settle.left"``, ``"settle.written"``, ``"settle.sent"``, ``"settle.before commit"``, in
        this order, are points of the settle of jobs that fail, come back, have dispatched something, or end in any way
        but plain success (which is one statement and has none); ``"tick.written"`` is one of a schedule's tick.
        """
        if point not in _POINTS:
            raise ConfigurationError(f"there is no point {point!r} to crash at; there are {', '.join(_POINTS)}")
        crash.arm(point, time)
        self._armed.append(point)

    async def _next_moment(self) -> float | None:
        """Seconds until something happens by itself; what should have happened already has a moment to do so."""
        until = monotonic() + _OVERDUE
        while True:
            seconds = await rehearse.next_moment(self._client.database, self.now)
            if seconds is None or seconds > 0 or monotonic() >= until:
                return seconds
            await asyncio.sleep(_BRIEFLY)

    async def _move(self, seconds: float) -> None:
        self._client.ahead += timedelta(seconds=seconds)
        await rehearse.shift(self._client.database, seconds)
        for hasten in self._client.notifier.hasten:
            hasten(seconds)
        self._client.notifier.wake([], scheduled=True)
        self._client.notifier.schedules_changed()

    def _end(self) -> None:
        for point in self._armed:
            crash.disarm(point)


@asynccontextmanager
async def testing(
    client: Client,
    rehearsal: Rehearsal,
    worker: Callable[..., AbstractAsyncContextManager[Any]],
    clock: datetime | None,
) -> AsyncIterator[Testing]:
    """See ``app.testing``."""
    if clock is not None and (not isinstance(clock, datetime) or clock.tzinfo is None):
        raise ConfigurationError(f"clock must be a datetime with a time zone, or None; got {clock!r}")
    virtual = Testing(client, rehearsal, clock)
    before = client.clock
    client.clock = lambda: virtual.now
    try:
        async with worker(grace=0.0):
            yield virtual
    finally:
        client.clock, client.ahead = before, timedelta(0)
        virtual._end()


def _named(left: list[tuple[int, str, int]]) -> str:
    found = {state: [f"{type} ({count})" for one, type, count in left if one == state] for state in range(3)}
    return "; ".join(f"{_STATES[state]}: {', '.join(types)}" for state, types in found.items() if types)
