"""A TCP proxy that behaves badly when asked to: it cuts, delays, swallows answers, and falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Self


class Link:
    """One connection through the proxy, and what is done to it."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self.said = b""
        """The first bytes of each message that the client sent, a few kilobytes of them."""
        self.silent = False
        """Nothing passes any more, in no direction, and nobody is told: as behind a firewall that forgot."""
        self.deaf = False
        """The server's answers are lost; what the client sends arrives."""
        self.held = False
        """The server's answers wait."""
        self.answers = b""
        """The last bytes that the server said."""
        self.swallowed = 0
        self._part = b""

    def cut(self) -> None:
        """Reset both sides, as a crashed router does."""
        for writer in (self._client, self._server):
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(65536):
            if not answers:
                self.said = (self.said + data)[-65536:]
            self._proxy.held += bool(self._proxy.delay or self.silent or self._proxy.silent)
            if delay := self._proxy.delay:
                await asyncio.sleep(delay)
            while self.silent or self._proxy.silent or (answers and self.held):
                # A peer that hung up meanwhile would be told by a reset, which a black hole does not pass on either.
                await asyncio.sleep(0.01)
            if answers and (self.deaf or self._proxy.deaf):
                self.swallowed += len(data)
                continue
            if answers:
                self.answers = (self.answers + data)[-65536:]
            if answers and self._proxy.unheard:
                data = self._without_notifications(data)
            target.write(data)
            await target.drain()

    def _without_notifications(self, data: bytes) -> bytes:
        """The server's whole messages, but for those that tell of a NOTIFY. Only without TLS, and from the start."""
        self._part += data
        passed = b""
        while len(self._part) >= 5 and len(self._part) > (length := int.from_bytes(self._part[1:5])):
            message, self._part = self._part[: length + 1], self._part[length + 1 :]
            passed += b"" if message[:1] == b"A" else message
        return passed


class Proxy:
    """Listens on a port of its own and passes on to ``target``: a port of this machine, or the path of a socket."""

    def __init__(self, target: int | str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self.links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay = 0.0
        self.silent = False
        self.deaf = False
        self.unheard = False
        """Notifications do not arrive, all else does: as through a pooler in transaction mode."""
        self.refusing = False
        self.held = 0
        """How often something came late because of what was done to this proxy."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def that_said(self, *words: bytes) -> list[Link]:
        """The links over which one of these was sent."""
        return [link for link in self.links if any(word in link.said for word in words)]

    def cut(self, links: Iterable[Link] | None = None) -> int:
        """Reset connections: all, or some. How many."""
        chosen = list(self.links if links is None else links)
        for link in chosen:
            link.cut()
        return len(chosen)

    def heal(self) -> None:
        """Be a good proxy again, and let go of what was held. A link that fell silent for itself stays so."""
        self.delay, self.silent, self.deaf, self.refusing = 0.0, False, False, False
        for link in self.links:
            link.deaf = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            if isinstance(self._target, str):
                from_server, to_server = await asyncio.open_unix_connection(self._target)
            else:
                from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, writer, to_server)
        self.links.append(link)
        ways = [
            asyncio.create_task(link.carry(reader, to_server, answers=False)),
            asyncio.create_task(link.carry(from_server, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            while link.silent or self.silent:
                await asyncio.sleep(0.01)
        finally:
            self.links.remove(link)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for one in (writer, to_server):
                one.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Tasks of one's own: asyncio complains loudly of a cancelled one that it made itself.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
