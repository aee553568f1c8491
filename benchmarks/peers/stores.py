"""What peers store in: a fresh database, or a Redis of our own that is told to write to disk each second."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import servers


@dataclass(frozen=True, slots=True)
class Stores:
    """Where they are."""

    dsn: str
    redis: str | None
    """``host:port``; None when there is no Redis server to start."""


@contextmanager
def redis() -> Iterator[str | None]:
    """A Redis on a free port, as durable as it is commonly run; None without `redis-server`."""
    program = shutil.which("redis-server")
    if program is None:
        print("# peers on Redis are left out: there is no redis-server")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="flowrun-bench-redis-") as directory:
        port = servers.free_port()
        settings = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            directory,
            "--save",
            "",
            "--loglevel",
            "warning",
        ]
        command = [program, *settings, "--appendonly", "yes", "--appendfsync", "everysec"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _listening(port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


async def redis_count(address: str, commands: str) -> int:
    """The sum of what ``commands`` (split by ``;``) count."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        each = commands.split(";")
        writer.write("".join(command + "\r\n" for command in each).encode())
        return sum([int((await reader.readline())[1:]) for _ in each])
    finally:
        writer.close()


def _listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
