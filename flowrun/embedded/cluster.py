"""The data directory: made whole or not at all, checked for its version, and the command that serves it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING

from flowrun.embedded.binaries import statistics_library
from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowrun.embedded.deadline import Deadline
    from flowrun.embedded.home import Home
    from flowrun.embedded.identity import Identity
    from flowrun.embedded.installation import Installation

SUPERUSER = "flowrun"
_DEFAULT_PORT = 5432  # without TCP it only names the socket
_UNFINISHED = "data.unfinished-"


def prepare_data(home: Home, identity: Identity, installation: Installation, deadline: Deadline) -> None:
    """Make the data directory when there is none, else check that these programs can serve it."""
    _remove_unfinished(home)
    if home.data.is_dir() and not any(home.data.iterdir()):
        home.data.rmdir()
    if not home.data.exists():
        _initialise(home, identity, installation, deadline)
        return
    _check_version(home, installation)
    if identity.uid is not None and home.data.stat().st_uid != identity.uid:
        identity.give(home.data)  # copied or restored by root


def server_command(
    home: Home, identity: Identity, installation: Installation, port: int, settings: Mapping[str, str]
) -> list[str]:
    """The command line of the server; every setting is on it, and nothing is written into the data directory."""
    chosen = {
        "unix_socket_directories": str(home.socket_directory(identity)),
        "unix_socket_permissions": "0700",
        "listen_addresses": "127.0.0.1" if port else "",
        "port": str(port or _DEFAULT_PORT),
        "max_connections": "200",
        "log_min_messages": "warning",
        "log_checkpoints": "off",
        "shared_preload_libraries": statistics_library(installation.bindir) or "",
    }
    if home.ephemeral:
        chosen |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    chosen |= settings
    options = [option for name, value in chosen.items() for option in ("-c", f"{name}={value}")]
    return [*identity.prefix, installation.program("postgres"), "-D", str(home.data), *options]


def _initialise(home: Home, identity: Identity, installation: Installation, deadline: Deadline) -> None:
    """Run initdb beside the data directory and rename the result, so that an interrupted run leaves none behind.

    The name is new each time: the initdb of a process that was killed may still be writing.
    """
    unfinished = home.base / f"{_UNFINISHED}{secrets.token_hex(4)}"
    unfinished.mkdir(mode=0o700)
    identity.give(unfinished)
    command = [installation.program("initdb"), "-D", str(unfinished), "-U", SUPERUSER, "-A", "trust"]
    command += ["-E", "UTF8", "--locale=C", "--no-instructions"]
    if installation.major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if home.ephemeral:
        command.append("--no-sync")
    try:
        made = identity.run(command, deadline.left())
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(f"initdb did not finish within {deadline.timeout:g} s") from error
    if made.returncode:
        _remove_unfinished(home)
        raise EmbeddedPostgresError(f"initdb failed in {home.base}:\n{(made.stderr or made.stdout).strip()[-2000:]}")
    unfinished.rename(home.data)
    _sync_directory(home)


def _check_version(home: Home, installation: Installation) -> None:
    try:
        made_by = (home.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedPostgresError(
            f"{home.data} exists but holds no PostgreSQL database: move it away, or name another directory"
        ) from None
    if made_by != str(installation.major):
        raise EmbeddedPostgresError(
            f"{home.data} was made by PostgreSQL {made_by}, and the programs in {installation.bindir} are PostgreSQL "
            f"{installation.major}. Set FLOWRUN_PG_BIN to the bin directory of a PostgreSQL {made_by} (and dump the "
            f"data from there with pg_dumpall to move it), or delete {home.base} to start empty."
        )


def _remove_unfinished(home: Home) -> None:
    for left in home.base.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _sync_directory(home: Home) -> None:
    if home.ephemeral:
        return
    descriptor = os.open(home.base, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
