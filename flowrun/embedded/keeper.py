"""The process that owns a server: it starts it, and stops it when the last handle is gone.

Run as a plain script (``python -I -S keeper.py JOB``) with the standard library only. It stays the caller's user, since
the server's user may not be able to run this Python. The kernel tells it about handles: they hold a shared lock on one
file, and when the exclusive lock is granted nobody is left. Should the keeper itself be killed, the kernel stops the
server (Linux), or the next start does (elsewhere).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

# What is written to the status pipe when the keeper ends; nothing when it is killed.
KEPT = b"kept"  # another keeper was faster
REFUSED = b"refused"  # the server ended by itself, with an error
STOPPED = b"stopped"  # the server was stopped or killed
_PR_SET_PDEATHSIG = 1


class PopenUser(TypedDict, total=False):
    """The keywords of ``subprocess.Popen`` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


class Job(TypedDict):
    """What the launcher asks for, as JSON in the first argument."""

    command: list[str]  # of the server
    environment: dict[str, str]
    user: PopenUser
    base: str
    sockets: str  # a directory made for the socket alone, to be deleted in the end; or empty
    ephemeral: bool
    status: int  # the pipe that is closed when the keeper ends


def main(job: Job) -> None:
    """Leave the caller's process tree, then keep the server until it ends."""
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler rather than SIG_IGN, which the server would inherit until it has installed its own.
        signal.signal(number, lambda *_: None)
    lock = os.open(Path(job["base"], "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(job["status"], KEPT)
        return
    keep(job)


def keep(job: Job) -> None:
    """Run the server until it ends by itself, or until no handle is left and it has been stopped."""
    stop = signal.SIGQUIT if job["ephemeral"] else signal.SIGINT  # immediate, since the data goes too; or fast
    server = subprocess.Popen(  # noqa: S603 - the command the launcher made
        job["command"],
        cwd="/",
        env=job["environment"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_dies_with_parent(stop),  # noqa: PLW1509 - there is only one thread so far
        **job["user"],
    )
    use = os.open(Path(job["base"], "use.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    unused = threading.Event()
    # The main thread may not be the one to wait for the lock: the server dies with the thread that started it.
    threading.Thread(target=_stop_when_unused, args=(server, use, unused, stop), daemon=True).start()
    failed = server.wait() > 0
    with contextlib.suppress(OSError):  # nobody reads any more
        os.write(job["status"], REFUSED if failed else STOPPED)
    if unused.is_set():
        if job["ephemeral"]:
            delete(Path(job["base"]))
        if job["sockets"]:
            shutil.rmtree(job["sockets"], ignore_errors=True)


def _stop_when_unused(server: subprocess.Popen[bytes], use: int, unused: threading.Event, stop: signal.Signals) -> None:
    fcntl.flock(use, fcntl.LOCK_EX)
    unused.set()
    for patience, number in ((30, stop), (10, signal.SIGQUIT), (0, signal.SIGKILL)):
        server.send_signal(number)
        threading.Event().wait(patience)


def _dies_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What asks Linux to stop the server when the keeper dies; runs after the change of user, which would clear it."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # a Python built without libffi has none; the next start then stops the server
    except ImportError:
        return None
    prctl = ctypes.CDLL(None).prctl
    keeper = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)

    return ask


def delete(base: Path) -> None:
    """Delete what is ours in an ephemeral directory; the lock on use comes last, as others may wait for it."""
    if not (base / "ephemeral").exists():
        return  # never a directory that was not made to be deleted
    shutil.rmtree(base / "data", ignore_errors=True)
    for name in ("server.log", "server.log.1", "ephemeral", "keeper.lock", "start.lock", "use.lock"):
        (base / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody is using it again
        base.rmdir()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
