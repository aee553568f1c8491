"""The version before, from the history of the repository: as it was when the newest migration was not there yet."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from flowrun.store import migrate

ROOT = Path(__file__).parents[2]


class NoHistory(Exception):
    """This is no clone, or not of all of it."""


def commit_before() -> str:
    """The last commit without the newest migration (where that is not committed yet: the last one). Raises NoHistory."""
    newest = max(migrate.migrations(), key=lambda step: step.number)
    path = next((ROOT / "flowrun/store/migrations").glob(f"{newest.number:04d}_*.sql"))
    came = _git("log", "--diff-filter=A", "-1", "--format=%H", "--", str(path)).decode().strip()
    wanted = f"{came}~1" if came and newest.number > 1 else "HEAD"
    return _git("rev-parse", "--verify", f"{wanted}^{{commit}}").decode().strip()


def unpack(commit: str, place: Path) -> Path:
    """Lay flowrun as it was in ``commit`` into ``place``: a directory to import it from. Raises NoHistory."""
    packed = _git("archive", commit, "flowrun", "examples/order_pipeline.py")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        if hasattr(tarfile, "data_filter"):  # not before 3.11.4
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(place)  # noqa: S202 - git's own
    return place


def _git(*words: str) -> bytes:
    command = ["git", "-c", "safe.directory=*", *words]
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoHistory(str(error)) from error
