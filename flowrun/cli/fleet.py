"""``flowrun serve --processes N``: a parent that runs no job, and its N children."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress

import anyio

from flowrun.cli.exits import FAILED, MIGRATE, OK, UsageError
from flowrun.cli.stopping import Stopping
from flowrun.logs import Log

logger = Log("flowrun.serve")

BACKOFF, LONGEST, STEADY = 0.5, 30.0, 60.0
"""Seconds before another child is started: at first, at most; and how long a child lives that was no quick death."""

ASKED = {OK, -signal.SIGTERM, -signal.SIGINT}
"""How a child ends that was asked to: a signal kills it while Python starts."""


async def run(arguments: Sequence[str], count: int, stopping: Stopping, environment: Mapping[str, str]) -> int:
    """Keep ``count`` processes of ``flowrun ARGUMENTS`` alive until a signal; the exit code for all."""
    if sys.platform == "win32":
        raise UsageError("--processes needs POSIX; start several `flowrun serve` instead")
    with stopping.listening():
        fleet = Fleet(arguments, environment)
        stopping.attend(fleet.stop)
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(fleet.keep_one)
    return fleet.code


class Fleet:
    """The children. One that dies is replaced; all end when :meth:`stop` is called, or when they cannot even start."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.code = OK
        self._environment = {**os.environ, **environment}
        self._command = [sys.executable, "-m", "flowrun", *arguments]
        self._children: set[Process] = set()
        self._stopped = asyncio.Event()
        self._times = 0
        self._proven = False

    def stop(self, times: int) -> None:
        """Pass a signal on to every child; the third is their last."""
        self._stopped.set()
        self._times = times
        for child in self._children:
            self._send(child, _signal(times))

    async def keep_one(self) -> None:
        """One child after the other, until stopped."""
        delay = BACKOFF
        while not self._stopped.is_set():
            started = time.monotonic()
            pid, code = await self.one()
            if self._stopped.is_set():
                self.code = self.code or (OK if code in ASKED else FAILED)
                return None
            if not self._proven and FAILED <= code <= MIGRATE:
                # The first to start, and it says what is wrong: the others would say the same.
                self.code = code
                return self.stop(1)
            if time.monotonic() - started > STEADY:
                delay = BACKOFF
            logger.warning("process %d ended (%s); starting another in %.1f s", pid, _ending(code), delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), delay)
            delay = min(delay * 2, LONGEST)
        return None

    async def one(self) -> tuple[int, int]:
        """Start a child and wait for its end; its process id and how it ended."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                # A session of its own: Ctrl-C reaches the parent only, which passes it on.
                child = await asyncio.create_subprocess_exec(
                    *self._command,
                    f"--parent={theirs.fileno()}",
                    stdin=DEVNULL,
                    env=self._environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._children.add(child)
            try:
                for times in range(1, self._times + 1):
                    self._send(child, _signal(times))
                if await asyncio.get_running_loop().sock_recv(ours, 1):
                    self._proven = True
                return child.pid, await child.wait()
            finally:
                self._children.discard(child)

    def _send(self, child: Process, number: int) -> None:
        # Not child.send_signal(): it looks whether the child has ended, and takes its exit code from who waits for it.
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)


def _signal(times: int) -> signal.Signals:
    """What is sent for the parent's so manieth. Two of a kind may reach a busy child as one, so no two are alike."""
    return (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[min(times, 3) - 1]


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
