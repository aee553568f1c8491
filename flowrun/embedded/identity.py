"""As which operating system user PostgreSQL's programs run.

PostgreSQL refuses to run as root, and ``initdb`` looks its own user up by name. So an ordinary user runs it as itself;
root drops only the server, to an account that is there already; and where neither works (a container with one mapped
user, a user without a passwd entry) the server becomes "nobody" in a user namespace of its own.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowrun.embedded.keeper import PopenUser

_ACCOUNTS = ("flowrun", "postgres", "nobody")
_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs PostgreSQL's programs: the caller itself when ``uid`` is None, behind ``prefix`` when that is set."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How to call it in a message."""
        if self.uid is None:
            return "the current user"
        return f"user {pwd.getpwuid(self.uid).pw_name!r}"

    @property
    def popen_user(self) -> PopenUser:
        """What makes ``subprocess`` run a program as this user."""
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs to its end as this user and collect what it says."""
        return _run([*self.prefix, *command], timeout, self.popen_user)

    def reaches(self, path: Path) -> bool:
        """Whether this user may pass through every directory down to ``path``; those still missing are not counted."""
        path = path.resolve()
        return all(self._enters(place) for place in (path, *path.parents) if place.is_dir())

    def give(self, path: Path) -> None:
        """Hand ``path`` and all in it to this user, and nothing that is also somewhere else.

        Links are not followed, whoever puts one there meanwhile; a file with several names stays whose it is.
        """
        if self.uid is None or self.gid is None:
            return
        for _, _, files, folder in os.fwalk(path, follow_symlinks=False):
            os.fchown(folder, self.uid, self.gid)
            for name in files:
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_nlink == 1:
                    os.chown(name, self.uid, self.gid, dir_fd=folder, follow_symlinks=False)

    def _enters(self, directory: Path) -> bool:
        if self.uid is None:
            return True
        found = directory.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & 0o100)
        return bool(found.st_mode & (0o010 if found.st_gid == self.gid else 0o001))


def choose_identity(data: Path) -> Identity:
    """Who shall run the server of the data directory ``data``, which may not exist yet."""
    try:
        identity = _drop_from_root(data) if os.geteuid() == 0 else _as_caller()
        _check_switch(identity)
    except KeyError:
        obstacle = f"user id {os.geteuid()} has no passwd entry, which initdb needs"
    except OSError as error:
        obstacle = f"root may not switch to another user here ({error.strerror})"
    else:
        return identity
    if _namespace_works():
        return Identity(prefix=_NAMESPACE)
    raise EmbeddedPostgresError(
        f"cannot run PostgreSQL: {obstacle}, and user namespaces are closed. "
        "Run as an ordinary user, or set FLOWRUN_DSN to a PostgreSQL of your own."
    )


def environment() -> dict[str, str]:
    """The environment of the server and its tools: nothing of the caller's but where libraries are found."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **kept}


def _as_caller() -> Identity:
    pwd.getpwuid(os.geteuid())
    return Identity()


def _drop_from_root(data: Path) -> Identity:
    if named := os.environ.get("FLOWRUN_PG_USER"):
        if found := _account(named):
            return found
        raise EmbeddedPostgresError(
            f"FLOWRUN_PG_USER={named} is no account of this machine, or is root: "
            "name an account that may run PostgreSQL"
        )
    if (owner := _owner(data)) is not None:
        return owner
    for name in _ACCOUNTS:
        if found := _account(name):
            return found
    raise EmbeddedPostgresError(
        f"PostgreSQL cannot run as root, and none of the accounts {', '.join(_ACCOUNTS)} exists: "
        "set FLOWRUN_PG_USER to an account, or FLOWRUN_DSN to a PostgreSQL of your own."
    )


def _account(name: str) -> Identity | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Identity(entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def _owner(data: Path) -> Identity | None:
    """The account that owns the data already; root does after a run in a namespace, and then says nothing."""
    try:
        return _account(pwd.getpwuid(data.lstat().st_uid).pw_name)
    except (FileNotFoundError, KeyError):
        return None


def _check_switch(identity: Identity) -> None:
    """Raise OSError when the user cannot be changed: that is tried before the program, which does not exist."""
    if identity.uid is not None:
        try:
            _run(["/nonexistent/flowrun"], 10, identity.popen_user)
        except FileNotFoundError:
            return


def _namespace_works() -> bool:
    try:
        return _run([*_NAMESPACE, "true"], 10, {}).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(command: Sequence[str], timeout: float, user: PopenUser) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - PostgreSQL's own programs, never a shell
        command,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        **user,
    )
