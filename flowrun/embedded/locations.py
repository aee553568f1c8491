"""Where the embedded PostgreSQL keeps its files, and the ``embedded:`` addresses that name such a place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote

from flowrun.errors import EmbeddedPostgresError

_SCHEME = "embedded:"


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
