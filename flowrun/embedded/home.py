"""The directory of one embedded PostgreSQL: what lies where in it, and where root has to put it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.embedded.installation import make_system_state
from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from flowrun.embedded.identity import Identity

_SOCKET_PATH_LIMIT = 103  # bytes in sockaddr_un.sun_path without the closing zero: 107 on Linux, 103 on macOS
_LOG_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Home:
    """The files of one embedded PostgreSQL; everything below ``base`` is ours."""

    base: Path
    ephemeral: bool = False

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory; complete whenever it exists."""
        return self.base / "data"

    @property
    def log(self) -> Path:
        """What the server and its keeper say."""
        return self.base / "server.log"

    @property
    def gate(self) -> Path:
        """Locked by whoever is about to join or start the server."""
        return self.base / "start.lock"

    @property
    def use(self) -> Path:
        """Locked, shared, by every handle; exclusively by a keeper that stops the server."""
        return self.base / "use.lock"

    @property
    def keeper(self) -> Path:
        """Locked by the keeper while it lives."""
        return self.base / "keeper.lock"

    @property
    def marker(self) -> Path:
        """Says that the directory may be deleted."""
        return self.base / "ephemeral"

    def create(self, *, passable: bool) -> None:
        """Make the directory; ``passable`` when a server of another user must get through to its data."""
        if not self.base.exists():
            self.base.mkdir(parents=True, exist_ok=True)
            self.base.chmod(0o711 if passable else 0o700)

    def claim(self) -> None:
        """Check that the directory is one of ours or may become one; the locks must be held."""
        found = {entry.name for entry in self.base.iterdir()} - {self.gate.name, self.use.name, self.keeper.name}
        if "PG_VERSION" in found:
            raise EmbeddedPostgresError(f"{self.base} is itself a data directory of PostgreSQL: name another one")
        marked = self.marker.name in found
        if marked and not self.ephemeral:
            raise EmbeddedPostgresError(f"{self.base} holds an ephemeral database: open it with ephemeral=True")
        if found and self.ephemeral and not marked:
            raise EmbeddedPostgresError(
                f"{self.base} is not empty, and an ephemeral database deletes its directory: name a new one"
            )
        if self.ephemeral:
            self.mark()

    def mark(self) -> None:
        """Say that the directory may be deleted."""
        os.close(os.open(self.marker, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))

    def refuse_link(self) -> None:
        """Raise EmbeddedPostgresError where root would follow a link: what it leads to would be given away.

        Whoever may write into the directory could have it lead anywhere.
        """
        if os.geteuid() == 0 and self.data.is_symlink():
            raise EmbeddedPostgresError(
                f"{self.data} is a symbolic link, which root does not follow: name the directory above what it leads "
                "to, or run as the user whose it is"
            )

    def socket_directory(self, identity: Identity) -> Path:
        """Where the server's socket goes: beside the data, or, where that is too long, to a private short place."""
        name = os.fsencode(self.data / ".s.PGSQL.65535")
        if len(name) <= _SOCKET_PATH_LIMIT and re.fullmatch(rb"[\w/.+@~-]+", name, re.ASCII):
            return self.data
        key = hashlib.sha256(name).hexdigest()[:12]
        place = Path("/tmp", f"flowrun-{os.geteuid()}-{key}")  # noqa: S108 - short, and checked below
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        owners = {os.geteuid(), identity.uid}
        if place.is_symlink() or not place.is_dir() or found.st_uid not in owners or found.st_mode & 0o077:
            raise EmbeddedPostgresError(f"{place} should be a private directory for the server's socket: delete it")
        identity.give(place)
        return place

    def open_log(self) -> int:
        """Open the log to append, and start a new one when it has grown large."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.rename(self.log.with_suffix(".log.1"))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            owner = self.base.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def log_tail(self, since: int = 0) -> str:
        """The last lines of the log, of those written after its first ``since`` bytes."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(since, size - 4000))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return "(there is no server.log)"
        return "\n".join(lines[-25:]) or "(server.log is empty)"


def stand_in(directory: Path) -> Path:
    """The place below ``/var/lib/flowrun`` for the files of a directory that is closed to the server's user."""
    return make_system_state() / f"data-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"


def ephemeral_place(identity: Identity) -> Path:
    """A new empty directory that the server's user can reach."""
    parents = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp makes a private directory in it
    parent = next((place for place in parents if identity.reaches(place)), None) or make_system_state()
    place = Path(tempfile.mkdtemp(prefix="flowrun-", dir=parent))
    if identity.uid is not None:
        place.chmod(0o711)
    Home(place).mark()
    return place
