"""The command line as people meet it: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.cli.entry import main

Said = tuple[int, str, str]

SHOP = """
import asyncio, os, time
from flowrun import Flowrun, Job

app = Flowrun(os.environ["SHOP_DSN"], lease=3.0, poll=1.0)
journal = os.open(os.environ["SHOP_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(word):
    os.write(journal, f"{word} {os.getpid()}\\n".encode())

@app.handler(attempts=3)
async def work(seconds: float = 0.0) -> int:
    note("start")
    await asyncio.sleep(seconds)
    note("end")
    return os.getpid()

@app.handler(queue="bills")
async def bill() -> int:
    return os.getpid()

@app.handler
def in_thread(seconds: float) -> None:
    note("start")
    time.sleep(seconds)

@app.handler
async def threaded(seconds: float) -> None:
    note("start")
    await asyncio.to_thread(time.sleep, seconds)

def create_app():
    return app

async def create_later():
    return app

number = 3
"""


async def until(found: Callable[[], Any] | Callable[[], Awaitable[Any]], timeout: float = 25.0) -> Any:
    """What ``found`` returns once it is true."""
    deadline = time.monotonic() + timeout
    while True:
        value = found()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


class Command:
    """A running ``flowrun``."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path, err: Path) -> None:
        self.process = process
        self._out, self._err = out, err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def send(self, number: int) -> None:
        # Not process.send_signal(): it may take the exit code from who waits for it.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def code(self, timeout: float = 25.0) -> int:
        try:
            return await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"still running; stderr:\n{self.err}") from None

    async def says(self, text: str, count: int = 1) -> None:
        def found() -> bool:
            ended = self.process.returncode is not None
            assert not ended or self.err.count(text) >= count, f"ended without {text!r}:\n{self.err}"
            return self.err.count(text) >= count

        await until(found)


class Shell:
    """Starts commands in a directory with ``shop.py``, and ends what a test leaves behind."""

    def __init__(self, directory: Path, dsn: str) -> None:
        self.directory = directory
        self.dsn = dsn
        self.journal = directory / "journal"
        self.started: list[Command] = []
        (directory / "shop.py").write_text(SHOP)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWRUN_")} | {
            "SHOP_DSN": dsn,
            "SHOP_JOURNAL": str(self.journal),
        }

    async def start(self, *arguments: str, **environment: str) -> Command:
        number = len(self.started)
        out, err = self.directory / f"out-{number}", self.directory / f"err-{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "flowrun", *arguments),
                cwd=self.directory,
                env=self.environment | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        command = Command(process, out, err)
        self.started.append(command)
        return command

    async def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        command = await self.start(*arguments, **environment)
        code = await command.code(40)
        return code, command.out, command.err

    async def serve(self, *arguments: str, workers: int = 1) -> Command:
        """``flowrun serve shop:app``, once it takes jobs."""
        command = await self.start("serve", "shop:app", *arguments)
        await command.says("runs 4 type(s)", workers)
        return command

    def words(self, word: str) -> list[int]:
        """The process ids that noted ``word``."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]


@pytest.fixture
async def shell(tmp_path: Path, dsn: str) -> AsyncIterator[Shell]:
    shell = Shell(tmp_path, dsn)
    yield shell
    for command in shell.started:
        if command.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                command.send(signal.SIGKILL)
            await command.process.wait()


@pytest.fixture
def typed(dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``await typed("show", id)``: exit code, stdout and stderr of the command, run in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*words: object) -> Said:
        code = await asyncio.to_thread(main, [*map(str, words), "--dsn", dsn])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
