"""Real servers in directories of their own; every wait is on a condition and has a deadline."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from flowrun.embedded import EmbeddedPostgres

from .processes import Holder, eventually, gone


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
    eventually(lambda: servers_below(place) is not None, f"the files of {place} to come to rest")
    for server in servers_below(place) or ():
        gone(server)
    eventually(lambda: shutil.rmtree(place, ignore_errors=True) or not place.exists(), f"{place} to be deleted")


def servers_below(place):
    """The process numbers of the servers below; None while a keeper deletes its directory."""
    try:
        return [int(file.read_text().split()[0]) for file in place.glob("**/postmaster.pid")]
    except (FileNotFoundError, IndexError):
        return None


@pytest.fixture
def directory(room):
    return room / "pg"
