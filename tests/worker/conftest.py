from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest


@dataclass
class Program:
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)


@dataclass
class Line:
    event: str
    job: str
    attempt: int
    pid: int
    at: int
    name: str


@dataclass
class Bench:
    dsn: str
    journal: Path
    programs: list[Program]
    module: str = "programs"

    async def start(self, concurrency: int = 4) -> Program:
        environment = os.environ | {
            "PROGRAM_DSN": self.dsn,
            "PROGRAM_JOURNAL": str(self.journal),
            "PROGRAM_CONCURRENCY": str(concurrency),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"tests.worker.{self.module}", env=environment, stdout=asyncio.subprocess.PIPE
        )
        program = Program(process)
        self.programs.append(program)
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        return program

    async def keep(self, concurrency: int) -> None:
        """Start a program again and again, whenever it has died, until cancelled."""
        while True:
            program = await self.start(concurrency)
            await program.process.wait()

    def lines(self, event: str | None = None) -> list[Line]:
        found = []
        for line in self.journal.read_text().splitlines():
            kind, job, attempt, pid, at, name = line.split(" ")
            if event in (None, kind):
                found.append(Line(kind, job, int(attempt), int(pid), int(at), name))
        return found


@pytest.fixture
async def bench(dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Starts worker processes and ends what is left of them."""
    journal = tmp_path / "journal"
    journal.touch()
    bench = Bench(dsn, journal, [])
    yield bench
    for program in bench.programs:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.process.wait()


@pytest.fixture
def count(connection: asyncpg.Connection) -> Callable[..., Awaitable[int]]:
    async def of(sql: str, *args: object) -> int:
        return int(await connection.fetchval(f"select count(*) from {sql}", *args))

    return of
