"""A PostgreSQL and a PgBouncer that a run owns: started, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import asyncpg

from flowrun.embedded.cluster import prepare_data, server_command
from flowrun.embedded.deadline import Deadline
from flowrun.embedded.home import Home
from flowrun.embedded.identity import choose_identity, environment
from flowrun.embedded.installation import find_installation

SETTINGS = {
    # The operating system does not crash here, so nothing is lost without fsync; without synchronous_commit it would be.
    "fsync": "off",
    "synchronous_commit": "on",
    "max_connections": "90",
    "log_min_messages": "error",  # the checker reads of deadlocks in it: a crash forgets the server's own count
    "autovacuum_naptime": "5s",
    "tcp_keepalives_idle": "5",
    "wal_recycle": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A PostgreSQL of its own directory; with ``small_disk``, on a file system that can be made full."""

    def __init__(self, directory: Path, *, small_disk: bool = False) -> None:
        self._home = Home(directory / "postgres")
        self._small_disk = small_disk
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.dsn = f"postgresql://flowrun@127.0.0.1:{self.port}/postgres"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prepare)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._small_disk:
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(self._home.base)], check=False)

    def _prepare(self) -> None:
        deadline = Deadline(120)
        self._home.base.mkdir(parents=True, exist_ok=True)
        if self._small_disk:
            mount(self._home.base)
        self._identity = choose_identity(self._home.data)
        self._home.base.chmod(0o711)
        self._installation = find_installation(self._identity, deadline)
        prepare_data(self._home, self._identity, self._installation, deadline)

    async def start(self) -> None:
        """Start it and wait until it answers."""
        command = server_command(self._home, self._identity, self._installation, self.port, SETTINGS)
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment(), cwd="/",
                start_new_session=True, **self._identity.popen_user,
            )  # fmt: skip
        finally:
            os.close(log)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(self.dsn, timeout=5)
                await connection.close()
                return
            assert self.running, "PostgreSQL did not start: see server.log"
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            await asyncio.sleep(0.02)

    @property
    def log(self) -> Path:
        """What all its lives wrote."""
        return self._home.base.with_name("server.log")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def stop(self, *, immediate: bool = True) -> None:
        """As pg_ctl does: without a checkpoint, so that it has to recover, or in order."""
        process = self._process
        if process is None:
            return
        if self.running:
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait, 20)

    async def fill_disk(self, seconds: float) -> bool:
        """No byte more can be written for a while. Whether the server died of it (it is started again)."""
        await asyncio.to_thread(_remount, self._home.base, _used(self._home.base))
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(_remount, self._home.base, SIZE)
        await asyncio.sleep(0.2)
        if self.running:
            return False
        await self.start()
        return True


SIZE = 4 << 30


def can_mount() -> bool:
    """Whether this process may have a small file system of its own."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def mount(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0711", "chaos", str(place)], check=True)


def _remount(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def _used(place: Path) -> int:
    found = os.statvfs(place)
    # A little more than is used now: it may have grown before the mount takes effect, which would be refused.
    return (found.f_blocks - found.f_bfree) * found.f_frsize + (64 << 10)


class Pooler:
    """PgBouncer in transaction mode before a server."""

    def __init__(self, directory: Path, server: int) -> None:
        self._directory = directory / "pgbouncer"
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "users.txt").write_text('"flowrun" ""\n')
        (self._directory / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={self._server}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {self._directory / "users.txt"}
            pool_mode = transaction
            default_pool_size = 8
            max_client_conn = 200
            server_login_retry = 1
            logfile =
            pidfile =
            """.replace("            ", "")
        )
        self._identity = choose_identity(self._directory)
        self._identity.give(self._directory)
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["pgbouncer", str(self._directory / "pgbouncer.ini")], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, cwd="/", **self._identity.popen_user,
            )  # fmt: skip

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def has_pooler() -> bool:
    return shutil.which("pgbouncer") is not None
