"""Where the embedded PostgreSQL keeps its files, and the ``embedded:`` addresses that name such a place."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote

from flowrun.errors import EmbeddedPostgresError

_SCHEME = "embedded:"
_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", "manage.py", "requirements.txt", ".git", ".hg")
"""What lies in the directory that is a whole project."""
_LONGEST = 63  # bytes of a name in PostgreSQL


def default_directory() -> Path:
    """The directory used when none is named.

    ``FLOWRUN_EMBEDDED_DIR``, else ``flowrun/postgres`` under ``XDG_DATA_HOME`` or ``~/.local/share``
    (macOS: ``~/Library/Application Support``).
    """
    if chosen := os.environ.get("FLOWRUN_EMBEDDED_DIR"):
        return _expanded(chosen).absolute()
    data_home = os.environ.get("XDG_DATA_HOME", "")
    if data_home.startswith("/"):  # the XDG specification says to ignore a relative path
        return Path(data_home, "flowrun", "postgres")
    below_home = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/share"
    return _expanded(below_home) / "flowrun" / "postgres"


def default_database(place: Path | None = None) -> str:
    """The name of the database used when none is named: one for each project, on the server that all of them share.

    ``FLOWRUN_EMBEDDED_DATABASE``, else the name of the project's directory with a digest of its path. The project is
    the nearest directory above ``place`` (the current directory) that has a ``pyproject.toml``, a ``.git`` or the
    like, else ``place`` itself. Raises EmbeddedPostgresError for a name that PostgreSQL cannot have.
    """
    if named := os.environ.get("FLOWRUN_EMBEDDED_DATABASE"):
        if len(os.fsencode(named)) > _LONGEST or not named.isprintable() or named in {"template0", "template1"}:
            raise EmbeddedPostgresError(
                f"FLOWRUN_EMBEDDED_DATABASE must be a name of 1 to {_LONGEST} bytes without control characters, and no "
                f"template; got {named[:100]!r}"
            )
        return named
    here = (place or Path.cwd()).resolve()
    project = next((one for one in (here, *here.parents) if any((one / mark).exists() for mark in _PROJECT)), here)
    words = re.sub(r"[^a-z0-9]+", "_", project.name.lower()).strip("_")[:40] or "project"
    if words.startswith("pg_"):  # names that begin so are the server's
        words = f"p{words}"
    return f"{words}_{hashlib.sha256(os.fsencode(project)).hexdigest()[:6]}"


def directory_from_dsn(dsn: str) -> Path | None:
    """The directory an ``embedded:`` address names, or None when ``dsn`` is any other kind of address.

    >>> directory_from_dsn("embedded:///srv/flowrun")
    PosixPath('/srv/flowrun')
    >>> directory_from_dsn("embedded:.flowrun/pg") == Path(".flowrun/pg").absolute()
    True
    >>> directory_from_dsn("postgresql://localhost/app") is None
    True

    ``embedded://`` alone is :func:`default_directory`. A relative path counts from the current directory, ``~`` is the
    home, and percent escapes are decoded.
    """
    if dsn[: len(_SCHEME)].lower() != _SCHEME:
        return None
    path = unquote(dsn[len(_SCHEME) :].removeprefix("//"))
    if not path.strip("/"):
        return default_directory()
    return _expanded(path).absolute()


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EmbeddedPostgresError(
            f"no home directory is known for {path!r}: set FLOWRUN_EMBEDDED_DIR to the directory to use"
        ) from error
