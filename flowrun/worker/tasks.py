"""The task of an attempt."""

from __future__ import annotations

import asyncio
from typing import Any

from flowrun.core.attempt import Claimed
from flowrun.guarded import culprit


class AttemptTask(asyncio.Task[None]):
    """One attempt's own: what its handler leaves pending in it (cancellations, scopes, timers) ends with it.

    It is made without the loop's task factory, which may take no context, or begin the handler inside its caller.
    """

    __slots__ = ("by",)
    by: Claimed | None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, and remember which job's code asked for that first."""
        if not hasattr(self, "by"):
            self.by = culprit()
        return super().cancel(msg)

    def stop(self) -> None:
        """Cancel it, for its worker."""
        super().cancel()


def cancelled_by(task: asyncio.Task[Any] | None) -> Claimed | None:
    """The job whose code cancelled the task of an attempt first; None: no job's did."""
    return getattr(task, "by", None)
