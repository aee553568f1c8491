"""What a worker hears, on its way from the thread that listens to the loop that works.

Whoever may log in to the database can send any notification, at any rate. So one only ever makes the worker look: what
there is to do stands in the tables. And what is heard while the loop is busy is kept once for each kind, not once for
each notification.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias
from uuid import UUID

from flowrun.worker.session import MOST_AWAITED, Session

_Call: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...]]"


class Heard:
    """Calls of a worker's loop, made by another thread: of those of one kind, the last counts."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop
        self._lock = threading.Lock()
        self._calls: dict[object, _Call] = {}
        self._awaited: dict[UUID, None] = {}

    def tell(self, kind: object, function: Callable[..., Any], *args: Any) -> None:
        """Have the loop call a function as soon as it can, once for all of one ``kind`` until then."""
        with self._lock:
            first = not self._calls
            self._calls[kind] = function, args
        if first:
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return  # the worker's loop is closed already

    def awaited(self, ids: Iterable[UUID]) -> None:
        """Somebody waits for ``ids``: have the worker remember them, as many as it does at most."""
        with self._lock:
            if len(self._awaited) < MOST_AWAITED:
                self._awaited.update(dict.fromkeys(ids))
        self.tell("await", self._remember)

    def _deliver(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, {}
        for function, args in calls.values():
            function(*args)

    def _remember(self) -> None:
        with self._lock:
            ids, self._awaited = self._awaited, {}
        self._session.remember_awaited(ids)
