"""Join the server of a directory, or start it: one process at a time, as the locks of ``home`` see to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.embedded import keeper, locks
from flowrun.embedded.cluster import prepare_data, server_command
from flowrun.embedded.home import Home, ephemeral_place, stand_in
from flowrun.embedded.identity import Identity, choose_identity, environment
from flowrun.embedded.installation import find_installation
from flowrun.embedded.probe import Postmaster, clear_the_way, read_postmaster
from flowrun.errors import EmbeddedPostgresError
from flowrun.logs import Log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowrun.embedded.deadline import Deadline

_KILLS_BORNE = 5  # during one start
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f]")

_logger = Log("flowrun.embedded")

# Said by a server whose predecessor was killed and is not quite gone: worth another try until the time is over.
_PASSING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


@dataclass(frozen=True, slots=True)
class Launch:
    """What a handle asks for."""

    directory: Path | None
    ephemeral: bool
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Membership:
    """A place among the users of a running server; it lasts until ``use`` is closed."""

    home: Home
    use: int
    dsn: str

    def is_kept(self) -> bool:
        """Whether the keeper lives: it ends with its server."""
        return locks.is_held(self.home.keeper)

    def give_up(self) -> None:
        """Leave; the keeper sees whether anybody is left."""
        os.close(self.use)
        _delete_if_abandoned(self.home)


def join(launch: Launch, deadline: Deadline) -> Membership:
    """Take a place among the users of the directory's server, and start that when nobody has."""
    home, identity = _choose_home(launch)
    try:
        while True:
            with contextlib.ExitStack() as undo:
                gate = _lock(home, home.gate, deadline)
                if gate is None:
                    continue
                undo.callback(locks.release, gate)
                # A keeper that is about to stop the server holds this one exclusively until it has.
                use = _lock(home, home.use, deadline, shared=True)
                if use is None:
                    continue
                undo_use = undo.enter_context(contextlib.ExitStack())
                undo_use.callback(locks.release, use)
                home.claim()
                dsn = _bring_up(home, identity, launch, deadline)
                undo_use.pop_all()
                return Membership(home, use, dsn)
    except BaseException:
        _delete_if_abandoned(home)
        raise


def revive(member: Membership, launch: Launch, deadline: Deadline) -> Membership | None:
    """Start the server of a place that is held already, should it have died; None when the directory is gone."""
    home = member.home
    if not locks.is_current(member.use, home.use):
        return None
    gate = locks.open_lock(home.gate)
    try:
        locks.acquire(gate, deadline, f"another process that starts the PostgreSQL of {home.base}")
        home.refuse_link()
        dsn = _bring_up(home, choose_identity(home.data), launch, deadline)
    finally:
        locks.release(gate)
    return Membership(home, member.use, dsn)


def _delete_if_abandoned(home: Home) -> None:
    """Delete an ephemeral directory that nobody uses and that no keeper is left to delete."""
    if not home.ephemeral or locks.is_held(home.keeper):
        return
    with contextlib.suppress(FileNotFoundError):
        if (use := locks.take_if_free(home.use)) is not None:
            keeper.delete(home.base)
            locks.release(use)


def _choose_home(launch: Launch) -> tuple[Home, Identity]:
    """The directory, made if need be, and who runs its server; root may have to keep the files elsewhere."""
    if launch.directory is None:
        identity = choose_identity(Path("/nonexistent"))
        return Home(ephemeral_place(identity), ephemeral=True), identity
    base = launch.directory.resolve()
    if _UNREADABLE.search(str(base)):
        raise EmbeddedPostgresError(
            f"{str(base)!r} has a control character in its name, which PostgreSQL's own files cannot tell from their "
            "line ends: name another directory"
        )
    home = Home(base, launch.ephemeral)
    home.refuse_link()
    identity = choose_identity(home.data)
    if identity.reaches(base):
        home.create(passable=identity.uid is not None)
        if identity.reaches(base):  # not so below directories that were made just now under a strict umask
            return home, identity
    home = Home(stand_in(base), launch.ephemeral)
    if not home.base.exists():
        _logger.warning(
            "%s is closed to %s, who runs PostgreSQL: its data is kept in %s", base, identity.name, home.base
        )
    return home, choose_identity(home.data)


def _lock(home: Home, path: Path, deadline: Deadline, *, shared: bool = False) -> int | None:
    """Open and lock; None when the directory was deleted meanwhile, as an ephemeral one is by its last user."""
    home.create(passable=os.geteuid() == 0)
    try:
        descriptor = locks.open_lock(path)
    except FileNotFoundError:
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(locks.release, descriptor)
        locks.acquire(
            descriptor, deadline, f"other users of {home.base} to start or stop its PostgreSQL", shared=shared
        )
        if not locks.is_current(descriptor, path):
            return None
        undo.pop_all()
    return descriptor


class _KilledError(Exception):
    """The server was killed, or its keeper was, before it was ready."""


def _bring_up(home: Home, identity: Identity, launch: Launch, deadline: Deadline) -> str:
    """See to it that a keeper lives and its server is ready."""
    kills = 0
    while True:
        if locks.is_held(home.keeper):
            if (running := _ready(home)) is not None:
                return running.dsn
            deadline.pause(lambda: f"PostgreSQL to become ready, see {home.log}:\n{home.log_tail()}")
            continue
        clear_the_way(home.data, deadline)
        try:
            if (started := _start(home, identity, launch, deadline)) is not None:
                return started.dsn
        except _KilledError as error:
            kills += 1
            if kills == _KILLS_BORNE:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is killed whenever it starts in {home.base}: {error}"
                ) from None


def _start(home: Home, identity: Identity, launch: Launch, deadline: Deadline) -> Postmaster | None:
    """Start a keeper and wait for its server; None when that has to be tried again."""
    installation = find_installation(identity, deadline)
    prepare_data(home, identity, installation, deadline)
    command = server_command(home, identity, installation, launch.port, launch.settings)
    log = home.open_log()
    said_before = os.fstat(log).st_size
    status, status_of_keeper = os.pipe()
    try:
        try:
            job = _job(home, identity, command, status_of_keeper)
            _spawn_keeper(job, log, deadline)
        finally:
            os.close(status_of_keeper)
            os.close(log)
        os.set_blocking(status, False)
        while (said := _read(status)) is None:
            if (running := _ready(home)) is not None:
                return running
            deadline.pause(lambda: f"PostgreSQL to become ready, see {home.log}:\n{home.log_tail(said_before)}")
    finally:
        os.close(status)
    tail = home.log_tail(said_before)
    if said == keeper.KEPT or any(passing in tail for passing in _PASSING):
        deadline.pause(f"an earlier server of {home.base} to end, see {home.log}:\n{tail}")
        return None
    if said == keeper.REFUSED:
        raise EmbeddedPostgresError(f"PostgreSQL did not start in {home.base}. Its server.log says:\n{tail}")
    raise _KilledError(f"its server.log says:\n{tail}")


def _ready(home: Home) -> Postmaster | None:
    postmaster = read_postmaster(home.data)
    return postmaster if postmaster is not None and postmaster.is_ready() else None


def _job(home: Home, identity: Identity, command: list[str], status: int) -> keeper.Job:
    sockets = home.socket_directory(identity)
    return {
        "command": command,
        "environment": environment(),
        "user": identity.popen_user,
        "base": str(home.base),
        "sockets": "" if sockets == home.data else str(sockets),
        "ephemeral": home.ephemeral,
        "status": status,
    }


def _spawn_keeper(job: keeper.Job, log: int, deadline: Deadline) -> None:
    """Run the keeper; the process started here ends at once, its child is the keeper and nobody's child."""
    with subprocess.Popen(  # noqa: S603 - this Python and a file of this package
        [_python(), "-I", "-S", keeper.__file__, json.dumps(job)],
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(job["status"],),
        start_new_session=True,
    ) as process:
        try:
            process.wait(deadline.left())
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise EmbeddedPostgresError(f"the keeper did not start within {deadline.timeout:g} s") from error


def _python() -> str:
    """A Python to run the keeper with; ``sys.executable`` is another program when Python is embedded in one."""
    for candidate in (sys.executable, f"{sys.prefix}/bin/python3", f"{sys.base_prefix}/bin/python3"):
        if candidate and Path(candidate).name.startswith(("python", "pypy")) and Path(candidate).exists():
            return candidate
    raise EmbeddedPostgresError("found no Python interpreter to run the keeper of the embedded PostgreSQL with")


def _read(status: int) -> bytes | None:
    """What the keeper said last; None while it lives and says nothing."""
    try:
        return os.read(status, 16)
    except BlockingIOError:
        return None
