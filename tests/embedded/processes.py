"""Looking at and killing real processes, and the holder: another process with a handle."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def eventually(condition, what, timeout=8.0):
    """Wait until ``condition()`` is true and return what it gave."""
    ends = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > ends:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(0.01)
    return result


def query(dsn, *statements):
    """Run the statements on one connection and return the value of the last."""

    async def run():
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                value = await connection.fetchval(statement)
            return value
        finally:
            await connection.close()

    return asyncio.run(run())


def lives(pid):
    """Whether the process runs; a zombie does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True)
    state = listed.stdout.strip()
    return bool(state) and not state.startswith("Z")


def parent(pid):
    return int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid)], text=True))


def postmaster(directory):
    """The process number of the server of ``directory``."""
    return int((Path(directory) / "data" / "postmaster.pid").read_text().split()[0])


def gone(pid):
    eventually(lambda: not lives(pid), f"process {pid} to be gone")


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    gone(pid)


class Holder:
    """Another process with a handle (see holder.py)."""

    def __init__(self, directory, *mode):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("holder.py")), str(directory), *mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])},
        )
        self.pid = self.process.pid

    def line(self):
        said = self.process.stdout.readline().strip()
        assert said, "the holder ended without a word"
        return said

    def leave(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()
