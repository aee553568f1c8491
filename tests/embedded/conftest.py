"""Real servers in directories of their own; every wait is on a condition and has a deadline."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from flowrun.embedded import EmbeddedPostgres

from .processes import Holder, gone


@pytest.fixture
def holder():
    """Start holders; those left at the end of the test are killed."""
    started = []

    def start(directory, *mode):
        started.append(Holder(directory, *mode))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def open_postgres():
    """Make handles that are closed at the end of the test."""
    with contextlib.ExitStack() as handles:

        def make(*arguments, **options):
            handle = EmbeddedPostgres(*arguments, **options)
            handles.callback(handle.close)
            return handle

        yield make


@pytest.fixture
def room():
    """A directory the server's user can reach, which pytest's tmp_path is not for root; emptied at the end."""
    place = Path(tempfile.mkdtemp(prefix="flowrun-test-", dir="/tmp")).resolve()
    place.chmod(0o711)
    yield place
    for left in place.glob("**/postmaster.pid"):
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            gone(int(left.read_text().split()[0]))
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def directory(room):
    return room / "pg"
