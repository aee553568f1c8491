"""What runs on a data directory, asked of the socket and the kernel; the file ``postmaster.pid`` alone proves nothing.

A dead server leaves the file behind, its process number may be another program's by now, and in a container whose
first process does not reap it may be a zombie.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from flowrun.embedded.cluster import SUPERUSER

if TYPE_CHECKING:
    from flowrun.embedded.deadline import Deadline

_GRACE = 3.0
_LINES = 8  # of a postmaster.pid: process, data, start, port, socket directory, address, shared memory, status


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A server as its ``postmaster.pid`` describes it."""

    data: Path
    pid: int
    port: int
    sockets: Path
    status: str

    @property
    def socket(self) -> Path:
        """The socket it should listen on."""
        return self.sockets / f".s.PGSQL.{self.port}"

    @property
    def dsn(self) -> str:
        """The address for asyncpg and libpq."""
        query = urlencode({"host": self.sockets, "port": self.port}, safe="/", quote_via=quote)
        return f"postgresql://{SUPERUSER}@/postgres?{query}"

    def is_ready(self) -> bool:
        """Whether it says so itself and somebody listens."""
        if self.status != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self.socket))
            except OSError:
                return False
        return True

    def is_running(self) -> bool:
        """Whether that process exists and is the server of this data directory."""
        return f"postgres -D {self.data} " in _command_line(self.pid)


def read_postmaster(data: Path) -> Postmaster | None:
    """The server that ``postmaster.pid`` speaks of, running or not; None when there is none or it just begins."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="surrogateescape").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return None
    if len(lines) < _LINES or not lines[4]:
        return None
    return Postmaster(data, int(lines[0]), int(lines[3]), Path(lines[4].strip()), lines[7].strip())


def clear_the_way(data: Path, deadline: Deadline) -> None:
    """See that nothing is in the way of a new server, now that no keeper is there.

    A server whose keeper was killed is stopping already (Linux) or has to be told to (macOS). What a dead one left is
    PostgreSQL's to judge, unless another program has its process number by now: PostgreSQL takes that for the server.
    """
    postmaster = read_postmaster(data)
    if postmaster is None:
        return
    told = False
    grace_ends = deadline.left() - _GRACE
    while postmaster.is_running():
        if not told and deadline.left() < grace_ends:
            os.kill(postmaster.pid, signal.SIGINT)
            told = True
        deadline.pause(f"the PostgreSQL of {data} (process {postmaster.pid}) to stop; it has lost its keeper")
    if _exists(postmaster.pid):
        (data / "postmaster.pid").unlink(missing_ok=True)
        postmaster.socket.unlink(missing_ok=True)
        postmaster.socket.with_name(f"{postmaster.socket.name}.lock").unlink(missing_ok=True)


def _command_line(pid: int) -> str:
    """The command line of a process; empty when there is none or it is a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
        except OSError:
            return ""
    listed = subprocess.run(  # noqa: S603 - fixed arguments
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
    )
    return listed.stdout


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
