"""Locks on files that the kernel drops when their holder is gone, however it went (``flock``).

A lock belongs to the open file, not to the process: two handles in one process are two holders, a child made by
``os.fork`` shares its parent's, and a program started with ``exec`` inherits none (Python opens files close-on-exec).
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from flowrun.embedded.deadline import Deadline


def open_lock(path: Path) -> int:
    """Open the lock file, made when missing. Root gives it to the directory's owner, who may come later."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def acquire(descriptor: int, deadline: Deadline, waiting_for: str, *, shared: bool = False) -> None:
    """Lock within the deadline. It asks again and again, since a blocking ``flock`` knows no time limit."""
    while not _try(descriptor, shared=shared):
        deadline.pause(waiting_for)


def is_current(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the open file; an ephemeral directory may go while somebody waits for its lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock exclusively."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, shared=True)
    finally:
        release(descriptor)


def take_if_free(path: Path) -> int | None:
    """Lock an existing file exclusively, unless anybody at all holds a lock on it."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    if _try(descriptor, shared=False):
        return descriptor
    os.close(descriptor)
    return None


def release(descriptor: int) -> None:
    """Unlock at once, also for a child that was forked in the meantime, and close."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _try(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
