"""An arena in a thread, so that it lives on between the examples of a property test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.model.arena import TIMEOUT, Arena, arena
from tests.model.smaller import failure, smallest
from tests.model.written import Flow


class Stage:
    def __init__(self, loop: asyncio.AbstractEventLoop, here: Arena) -> None:
        self._loop = loop
        self._here = here

    def play(self, flows: Sequence[Flow]) -> None:
        """AssertionError has the smallest flow found that is not as expected."""
        asyncio.run_coroutine_threadsafe(self._play(flows), self._loop).result(TIMEOUT * 30)

    async def _play(self, flows: Sequence[Flow]) -> None:
        problem = await failure(self._here, flows)
        assert problem is None, await smallest(self._here, flows, problem)


@contextmanager
def stage(dsn: str) -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stage")
    thread.start()
    context = arena(dsn)
    try:
        here = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)
        try:
            yield Stage(loop, here)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
