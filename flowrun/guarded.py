"""Tasks of flowrun's own that the code of a job cannot end.

``for task in asyncio.all_tasks(): task.cancel()`` stands in more than one library. In a handler it would end the worker
that runs it, and every dispatch of the program; cut a settle in the middle; and with it the jobs of others.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _unregister_task  # documented: "Extending asyncio"
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from flowrun.core.attempt import Claimed

T = TypeVar("T")

_BY_SCOPE = "Cancelled via cancel scope "
"""How anyio says that a cancellation is its own."""


def culprit() -> Claimed | None:
    """The job, of whatever app in this process, that the calling code runs for; also after its attempt is over."""
    return next((value for value in copy_context().values() if type(value) is Claimed), None)


class Guarded(asyncio.Task[None]):
    """A task that is ended by its owner, or by the end of the loop, and by no job."""

    __slots__ = ("_cut", "_refused")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        *,
        name: str,
        refused: Callable[[Claimed], None] | None = None,
        cut: Callable[[], None] | None = None,
    ) -> None:
        """``refused`` is told of a job that tried; ``cut``, that whoever ends the loop cancels what is left."""
        super().__init__(coroutine, loop=asyncio.get_running_loop(), name=name)
        self._refused = refused
        self._cut = cut

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, unless the code of a job asks for that."""
        if isinstance(msg, str) and msg.startswith(_BY_SCOPE):
            return super().cancel(msg)
        job = culprit()
        if job is not None:
            if self._refused is not None:
                self._refused(job)
            return False
        if self._cut is not None:
            self._cut()
        return super().cancel(msg)

    def end(self) -> None:
        """Cancel it, as its owner."""
        super().cancel()


async def sheltered(run: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
    """``await run(...)`` in a task that is not among ``asyncio.all_tasks()``: it ends with the group it is in."""
    task = asyncio.current_task()
    if task is not None:
        task.set_name(getattr(run, "__qualname__", task.get_name()))
        _unregister_task(task)
    return await run(*args, **named)
