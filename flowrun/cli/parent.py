"""A process of many and the one that started it: a socket between them tells each how the other is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Parent:
    """The end of the socket in the child. Without one (``fd`` None) there is no parent, and nothing to do."""

    def __init__(self, fd: int | None) -> None:
        self._socket: socket.socket | None = None
        if fd is not None:
            os.set_inheritable(fd, False)
            self._socket = socket.socket(fileno=fd)

    @contextmanager
    def watched(self, gone: Callable[[str], None]) -> Iterator[None]:
        """Call ``gone`` when the parent has ended, however it did: the kernel closes its end of the socket."""
        if self._socket is None:
            yield
            return
        loop, fd = asyncio.get_running_loop(), self._socket.fileno()

        def readable() -> None:
            loop.remove_reader(fd)
            gone("the parent process is gone")

        loop.add_reader(fd, readable)
        try:
            yield
        finally:
            loop.remove_reader(fd)

    def tell_ready(self) -> None:
        """Tell the parent that this process takes jobs."""
        if self._socket is not None:
            try:
                self._socket.send(b"r")
            except OSError:
                return  # gone: `watched` tells
