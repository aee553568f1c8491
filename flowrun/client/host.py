"""A home for services that live as long as an ``async with`` block, in a task of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import anyio

from flowrun.core.attempt import Claimed
from flowrun.guarded import Guarded, sheltered

Service: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
"""An ``async def`` that takes ``task_status``."""


class Host:
    """Runs services in one task group.

    The group lives in a task of its own, because ``__aenter__`` and ``__aexit__`` of an app are often called from
    different tasks (a test's fixture, a web framework's lifespan), which a task group does not survive. A service that
    raises brings the others down, and the error comes out of :meth:`stop`. Endless services run until :meth:`stop`;
    others are waited for by :meth:`join`.
    """

    def __init__(
        self,
        name: str,
        *,
        endless: bool = True,
        refused: Callable[[Claimed], None] | None = None,
        cut: Callable[[], None] | None = None,
    ) -> None:
        """``refused`` and ``cut``: see :class:`Guarded`."""
        self._name = name
        self._endless = endless
        self._refused = refused
        self._cut = cut
        self._task: Guarded | None = None
        self._stop: asyncio.Event = asyncio.Event()

    async def start(self, *services: Service) -> None:
        """Start ``services``, each with ``task_status``, and return when all have said that they have started."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = Guarded(self._run(services, ready), name=self._name, refused=self._refused, cut=self._cut)
        try:
            await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.end()
            await self.stop()
            raise
        if not ready.done():
            ready.cancel()
            await self._finish()

    async def stop(self) -> None:
        """Cancel what still runs, wait for it, and raise what went wrong."""
        self._stop.set()
        await self._finish()

    async def join(self) -> None:
        """Wait until the services have ended by themselves, and raise what went wrong."""
        await self._finish()

    async def _finish(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            try:
                await asyncio.shield(task)
            except BaseExceptionGroup as group:
                raise _only(group) from None

    async def _run(self, services: tuple[Service, ...], ready: asyncio.Future[None]) -> None:
        async with anyio.create_task_group() as group:
            for service in services:
                await group.start(partial(sheltered, service))
            if not ready.done():
                ready.set_result(None)
            if self._endless:
                await self._stop.wait()
                group.cancel_scope.cancel()


def _only(error: BaseException) -> BaseException:
    """The error itself where a group holds just one: people read tracebacks from the end."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
