"""Plain functions, run in threads so that the loop stays free."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread


class Threads:
    """As many threads as there are consumers."""

    def __init__(self, count: int) -> None:
        self._limiter = anyio.CapacityLimiter(count)

    async def run(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns or raises. A cancellation leaves the thread behind."""
        value, error = await anyio.to_thread.run_sync(
            partial(_caught, call), limiter=self._limiter, abandon_on_cancel=True
        )
        if error is not None:
            raise error
        return value


def _caught(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a call in a thread came to. A GeneratorExit that travelled by a future would end all that wait for it."""
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - raised again where it belongs
        return None, error
