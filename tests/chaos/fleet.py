"""The processes of a run: started, ended by force or in order, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.computing import PLACE
from tests.chaos.journal import Journal
from tests.chaos.proxy import Proxy
from tests.chaos.worker import Settings

HERE = Path(__file__).parents[2]


@dataclass(eq=False)
class Member:
    """A place in the fleet. Whatever process stands in it, another one follows when it has ended."""

    settings: Settings
    program: str
    proxies: list[Proxy]
    """Those that its connections lead through."""
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False
    """By SIGSTOP."""
    ending: bool = False
    """It is asked to end, or killed."""
    final: bool = False
    """No process follows."""
    old: bool = False
    """An older version of flowrun, whose faults are known."""
    lives: int = 0
    change: Callable[[Settings], Settings] = lambda settings: settings
    """What the next process is told besides."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def signal_if_stopped(self) -> None:
        """Nobody is left stopped."""
        self.signal(signal.SIGCONT)
        self.stopped = False

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


@dataclass
class Fleet:
    place: Path
    journal: Journal
    members: list[Member] = field(default_factory=list)
    deaths: dict[int, float] = field(default_factory=dict)
    """By process, when it was gone."""
    surprises: list[str] = field(default_factory=list)
    """Processes that ended and should not have."""
    closing: bool = False

    @property
    def workers(self) -> list[Member]:
        return [member for member in self.members if member.program == "worker"]

    @property
    def clients(self) -> list[Member]:
        return [member for member in self.members if member.program != "worker"]

    @property
    def dispatchers(self) -> list[Member]:
        return [member for member in self.members if member.program == "dispatcher"]

    async def start(self, member: Member, settings: Settings) -> asyncio.subprocess.Process:
        """A process for a member."""
        with (self.place / f"{member.name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"tests.chaos.{member.program}", settings.text(),
                cwd=HERE, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", PLACE: str(self.place)},
            )  # fmt: skip

    def slow(self, member: Member, pid: int, seconds: float) -> None:
        """A process did not end when it was asked to. Of the version before that is known; it is counted."""
        if member.old:
            self.journal.write("old and slow", child=pid)
        else:
            self.surprises.append(f"{member.name} (pid {pid}) did not end within {seconds:.0f} s of SIGTERM")

    async def twin(self, member: Member, seconds: float) -> int:
        """Start a second process beside a member's, of the same name; after a while it is killed."""
        process = await self.start(member, replace(member.settings, number=1000 + member.lives))
        self.journal.write("twin started", member=member.name, child=process.pid)
        try:
            await asyncio.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self.deaths[process.pid] = time.monotonic()
        return process.pid

    async def keep(self, member: Member) -> None:
        """Keep a process in this place until cancelled."""
        while not self.closing and not member.final:
            member.lives += 1
            settings = member.change(replace(member.settings, number=member.lives))
            member.process = await self.start(member, settings)
            member.stopped = member.ending = False
            member.old = bool(settings.old)
            process = member.process
            self.journal.write("started", member=member.name, child=process.pid, old=bool(settings.old))
            status = await process.wait()
            self.deaths[process.pid] = time.monotonic()
            self.journal.write("ended", member=member.name, child=process.pid, status=status)
            by_itself = not member.ending and not self.closing and status != -signal.SIGKILL
            if by_itself:
                self.surprises.append(f"{member.name} (pid {process.pid}) ended by itself with status {status}")
                await asyncio.sleep(0.5)

    async def end(self, seconds: float = 20.0) -> None:
        """Ask all to end, wait, and kill those that do not."""
        self.closing = True
        for member in self.members:
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while any(member.alive for member in self.members) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for member in self.members:
            if member.alive:
                self.slow(member, member.pid, seconds)
                with contextlib.suppress(ProcessLookupError):
                    member.signal(signal.SIGKILL)
