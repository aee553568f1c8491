"""Connections that notice when nobody is there any more.

A link that is half-open (a firewall that forgot it, a host that is gone, a pooler that hangs) looks healthy for ever:
asyncpg sets no keepalive and waits for an answer without end. Here a dead host is noticed by the kernel, and whatever
else does not answer is given up after a while; its statement counts as lost, and whoever sent it connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakSet

import asyncpg

from flowrun.dsn import Keepalive

PATIENCE = 40.0
"""Seconds that an answer may take: more than any wait for a lock (lock_timeout), which has an error of its own."""
ROWS_A_SECOND = 500
"""Statements that carry many rows have so much longer."""
_MANY = (list, tuple, range)
"""What carries rows."""
IDLE, INTERVAL, PROBES = 15, 5, 3
"""Keepalive, where the DSN does not say: seconds of silence, seconds between questions, unanswered ones after which a
host is gone."""


class Silent(TimeoutError):
    """A statement was not answered in time. It may have been done."""


_LINKS: WeakSet[Link] = WeakSet()
"""Those of this process."""


class Link(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """An asyncpg connection that is terminated, and raises Silent, when a statement is not answered in time.

    asyncpg's own ``timeout`` asks the server to cancel, and then waits for *that* to be answered before a rollback can
    be sent or the connection be closed: on a dead link, for ever.
    """

    patience: float | None = None
    """Seconds; None: PATIENCE."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        _LINKS.add(self)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """As asyncpg does."""
        with _Watch(self, timeout, args):
            return await super().execute(query, *args)

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        """As asyncpg does."""
        with _Watch(self, timeout, args):
            return await super().fetch(query, *args, record_class=record_class)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        """As asyncpg does."""
        with _Watch(self, timeout, args):
            return await super().fetchrow(query, *args, record_class=record_class)

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """As asyncpg does."""
        with _Watch(self, timeout, args):
            return await super().fetchval(query, *args, column=column)

    async def copy_records_to_table(
        self, table_name: str, *, records: Sequence[Any], timeout: float | None = None, **options: Any
    ) -> Any:
        """As asyncpg does."""
        with _Watch(self, timeout, (records,)):
            return await super().copy_records_to_table(table_name, records=records, **options)

    async def copy_to_table(
        self, table_name: str, *, rows: int = 0, timeout: float | None = None, **options: Any
    ) -> Any:
        """As asyncpg does; ``rows`` are so many, about."""
        with _Watch(self, timeout, (range(rows),)):
            return await super().copy_to_table(table_name, **options)


def _let_go() -> None:
    """In a forked child: whatever it does with a connection of its parent's, or that Python does when it is thrown
    away, reaches nobody. To the child, its socket is the null device."""
    nothing = os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(RuntimeError):  # another thread was just opening one
        for link in list(_LINKS):
            transport: Any = getattr(link, "_transport", None)
            sock = None if transport is None else transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                os.dup2(nothing, sock.fileno(), inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class _Watch:
    """Terminates a link after ``seconds`` inside it."""

    __slots__ = ("_late", "_link", "_seconds", "_timer")

    def __init__(self, link: Link, seconds: float | None, args: Sequence[Any]) -> None:
        self._link = link
        self._late = False
        self._seconds = (seconds or link.patience or PATIENCE) + _rows(args) / ROWS_A_SECOND

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._late and isinstance(error, Exception):
            raise Silent(f"no answer within {self._seconds:.0f} s: the link was given up") from error

    def _give_up(self) -> None:
        self._late = True
        self._link.terminate()


def _rows(args: Sequence[Any]) -> int:
    return max([len(value) for value in args if type(value) in _MANY], default=0)


@contextmanager
def hurried(connection: Any, seconds: float) -> Iterator[None]:
    """Be less patient with a connection (of the pool, too) for a while."""
    link = getattr(connection, "_con", connection)
    link.patience, before = seconds, link.patience
    try:
        yield
    finally:
        link.patience = before


async def keep_alive(connection: Any, keepalive: Keepalive) -> None:
    """Have the kernel notice when the other host is gone, also while nothing is sent."""
    sock = connection._transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    idle, interval, probes = keepalive.idle or IDLE, keepalive.interval or INTERVAL, keepalive.count or PROBES
    options = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": probes,
        "TCP_USER_TIMEOUT": keepalive.user_timeout or (idle + interval * probes) * 1000,
    }
    with contextlib.suppress(OSError):  # a platform that has it otherwise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive.on))
        for name, value in options.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
