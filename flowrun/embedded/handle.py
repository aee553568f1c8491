"""The handle that users hold."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.embedded.deadline import Deadline
from flowrun.embedded.locations import default_directory
from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from flowrun.embedded.launcher import Membership


class EmbeddedPostgres:
    """A handle on the private PostgreSQL of a directory.

        with EmbeddedPostgres(".flowrun/postgres") as postgres:
            pool = await asyncpg.create_pool(postgres.dsn)

    All handles of a directory, in any number of processes, share one server. It stops within about a second when the
    last one is closed or its process is gone, also by ``kill -9``. A handle that is never closed lasts as long as its
    process. A child made by ``os.fork`` shares the handles of its parent, which count until both have closed them or
    ended; a program started with ``exec`` or ``subprocess`` does not.

    ``directory``
        Where the data is kept; :func:`default_directory` when None. It must be on a local disk. As root the server
        runs as another user, and when that cannot reach the directory, the data is kept in ``/var/lib/flowrun``
        instead: the attribute ``directory`` tells the place once started.
    ``port``
        0 for a unix socket only, in a directory that is closed to other users; else TCP on 127.0.0.1 as well. No
        password is asked for, so with TCP every user of the machine gets in.
    ``ephemeral``
        Fast and forgetful: no waiting for the disk, and the directory (a new temporary one when None) is deleted with
        the last handle.
    ``settings``
        Further settings of the server, as in ``postgresql.conf``. These and ``port`` count for whoever starts the
        server; who finds it running takes it as it is.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        port: int = 0,
        ephemeral: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory: Path | None = None if directory is None else Path(directory).absolute()
        self.dsn: str | None = None
        if self.directory is None and not ephemeral:
            self.directory = default_directory()
        self._requested = self.directory
        self._ephemeral = ephemeral
        self._port = port
        self._settings = dict(settings or {})
        self._member: Membership | None = None
        self._mutex = threading.Lock()

    def start(self, timeout: float = 60.0) -> str:
        """Start the server, or join it when it runs, and return its address. Blocks; takes 0.1 to 1 s as a rule.

        Once started it returns the same address again, after a restart should the server have died.
        """
        if sys.platform == "win32":
            raise EmbeddedPostgresError(
                "the embedded PostgreSQL does not run on Windows: set FLOWRUN_DSN to a PostgreSQL of your own"
            )
        with self._mutex:
            try:
                member = self._join(Deadline(timeout))
            except PermissionError as error:
                raise EmbeddedPostgresError(
                    f"{error.filename or self.directory} is closed to this user: set FLOWRUN_EMBEDDED_DIR (or "
                    "FLOWRUN_DSN=embedded:///path) to a directory of your own"
                ) from error
            except (OSError, subprocess.SubprocessError) as error:
                raise EmbeddedPostgresError(f"cannot start PostgreSQL in {self.directory}: {error}") from error
            self._member = member
            self.directory = member.home.base
            self.dsn = member.dsn
            return member.dsn

    @property
    def alive(self) -> bool:
        """Whether the server that this handle started or joined is still kept: False once it died, until
        :meth:`start` starts it again."""
        member = self._member
        return member is not None and member.is_kept()

    def close(self) -> None:
        """Give up this handle; the server stops by itself when it was the last one. May be called twice."""
        with self._mutex:
            member, self._member, self.dsn = self._member, None, None
            if member is not None:
                member.give_up()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _join(self, deadline: Deadline) -> Membership:
        from flowrun.embedded.launcher import Launch, join, revive  # not importable on Windows

        launch = Launch(self._requested, self._ephemeral, self._port, self._settings)
        if self._member is not None:
            if (member := revive(self._member, launch, deadline)) is not None:
                return member
            os.close(self._member.use)  # of a directory that somebody deleted
            self._member = None
        return join(launch, deadline)
