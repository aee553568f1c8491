"""Handlers with ``process=True``: a pool of processes, each of which runs one attempt at a time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from time import monotonic
from typing import Any
from uuid import UUID

import anyio

from flowrun import codec, importable
from flowrun.context import Job
from flowrun.core.attempt import Claimed, Failure
from flowrun.core.outcome import RaisedElsewhere, Said
from flowrun.core.parents import Ancestor
from flowrun.errors import ConfigurationError, ProcessDied, Retry, Snooze
from flowrun.guarded import sheltered
from flowrun.logs import Log
from flowrun.registry import Definition
from flowrun.worker.child import LEAVE, LENGTH

logger = Log("flowrun.worker")

IDLE = 60.0
"""Seconds without work after which a process is ended."""
START = 120.0
"""Seconds a process has to start and to import its handler's module."""

_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from flowrun.worker.child import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)

Report = Callable[[float, str | None], Awaitable[None]]


class Process:
    """One process and the socket to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.loaded: set[str] = set()
        self.idle_since = 0.0
        self._killed = False
        self._asked = False
        """It owes an answer."""

    @classmethod
    async def start(cls) -> Process:
        """A new interpreter, not a fork of this one. It hears no Ctrl-C, and ends when this process does."""
        if sys.platform == "win32":
            raise ConfigurationError("handlers with process=True need POSIX")
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _COMMAND),  # type: ignore[attr-defined]
                    *(str(theirs.fileno()), str(os.getpid()), codec.dump(sys.path)),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        started = cls(process, reader, writer)
        await started._send({"level": logging.getLogger().level, "main": importable.program()})
        return started

    @property
    def free(self) -> bool:
        """Whether it can be asked something: it has answered, and lives as far as is known."""
        return not self._asked and self._process.returncode is None and not self._reader.at_eof()

    async def load(self, definition: Definition, error_text: int) -> None:
        """Import the handler there, once. Raises RaisedElsewhere or ProcessDied."""
        if definition.type in self.loaded:
            return
        request = {"load": list(definition.address or ()), "type": definition.type, "error_text": error_text}
        with anyio.move_on_after(START) as scope:
            await self._ask(request, _nowhere)
        if scope.cancelled_caught:
            raise ProcessDied(f"a process could not import the handler's module within {START:.0f} s and was killed")
        self.loaded.add(definition.type)

    async def run(self, request: Mapping[str, Any], report: Report) -> str:
        """What the handler returned, as JSON. Raises RaisedElsewhere, Retry, Snooze or ProcessDied."""
        result: str = (await self._ask(request, report))["result"]
        return result

    async def watch(self) -> None:
        """Return when it has ended. Its own children may hold the socket open: it is closed for it."""
        await self._process.wait()
        self._reader.feed_eof()

    def close(self) -> None:
        """Let it end: it has nothing to do."""
        self._writer.close()

    def kill(self) -> None:
        """End it, and the processes it has started, also when it has just ended itself: its group has its number."""
        self._writer.close()
        if not self._killed:
            self._killed = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Return when it has ended."""
        await self._process.wait()

    async def _send(self, message: Mapping[str, Any]) -> None:
        frame = codec.dump(dict(message)).encode()
        self._writer.write(LENGTH.pack(len(frame)) + frame)
        with suppress(ConnectionError):  # its end is noticed by who waits for the answer
            await self._writer.drain()

    async def _ask(self, request: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        """The answer to a request; what is said before it is passed on."""
        self._asked = True
        await self._send(request)
        while True:
            try:
                length = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
                message: dict[str, Any] = codec.load(await self._reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                raise ProcessDied(await self._death()) from None
            if "log" in message:
                _log(message["log"])
            elif "progress" in message:
                await _reported(report, *message["progress"])
            else:
                self._asked = False
                if "failed" in message:
                    raise _raised(message["failed"])
                return message

    async def _death(self) -> str:
        with anyio.move_on_after(LEAVE):
            await self._process.wait()
        code = self._process.returncode
        if code is None:
            return f"the handler's process {self._process.pid} closed its socket and was killed"
        if code >= 0:
            return f"the handler's process {self._process.pid} ended with exit code {code} before the handler did"
        name = signal.Signals(-code).name
        hint = "; the system does so when memory runs out" if code == -signal.SIGKILL else ""
        return f"the handler's process {self._process.pid} was killed by {name}{hint}"


class Processes:
    """At most ``limit`` processes. They are started when needed, kept for the next attempt, and ended when idle."""

    def __init__(self, limit: int, *, max_payload: int, error_text: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._started = asyncio.Event()
        self._group: anyio.abc.TaskGroup | None = None
        self.max_payload = max_payload
        self.error_text = error_text

    async def run(self) -> None:
        """Look after the processes until cancelled; none is left then."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                await self._started.wait()
                while True:
                    await anyio.sleep(IDLE / 4)
                    self._end_idle()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end_all()
                group.cancel_scope.cancel()

    def request(self, definition: Definition, args: str, context: Job, job: Claimed) -> dict[str, Any]:
        """What a process is asked for one attempt."""
        named: dict[str, Any] | None = None
        if definition.job_parameter is not None:
            plain = ("type", "queue", "attempt", "attempts", "name", "priority", "tags")
            named = {name: getattr(context, name) for name in plain}
            named |= {name: _text(getattr(context, name)) for name in ("id", "flow_id", "dispatched_by")}
            named["parents"] = None
            if job.parents is not None:
                named["parents"] = [_by_name(job.parents.written), _by_name(job.parents.full)]
        return {
            "run": definition.type, "args": args, "job": named,
            "max_payload": self.max_payload, "error_text": self.error_text,
        }  # fmt: skip

    @asynccontextmanager
    async def one(self, definition: Definition) -> AsyncIterator[Process]:
        """A process that has loaded the handler, for one attempt. Waits for a free one. One that still works when it is
        left is killed."""
        async with self._limiter:
            process = self._kept(definition.type) or await self._new()
            try:
                await process.load(definition, self.error_text)
                yield process
            finally:
                if definition.type in process.loaded and process.free and self._group is not None:
                    process.idle_since = monotonic()
                    self._idle.append(process)
                else:
                    process.kill()

    def _kept(self, type: str) -> Process | None:
        """An idle process, the one used last, one that has loaded the handler before all others."""
        self._idle = [process for process in self._idle if process.free]
        if not self._idle:
            return None
        found = next((process for process in reversed(self._idle) if type in process.loaded), self._idle[-1])
        self._idle.remove(found)
        return found

    async def _new(self) -> Process:
        if self._group is None:
            raise ConfigurationError("the worker has ended: it starts no process")
        process = await Process.start()
        self._all.add(process)
        self._started.set()
        # It outlives the job that asked for it, so it is no task of that job: see leftovers.py.
        Context().run(self._group.start_soon, sheltered, self._watch, process)
        return process

    async def _watch(self, process: Process) -> None:
        await process.watch()
        self._all.discard(process)

    def _end_idle(self) -> None:
        before = monotonic() - IDLE
        for process in self._idle:
            if process.idle_since < before:
                process.close()
        self._idle = [process for process in self._idle if process.idle_since >= before]

    async def _end_all(self) -> None:
        self._group = None
        for process in self._all:
            process.close() if process in self._idle else process.kill()
        with anyio.move_on_after(LEAVE):
            for process in list(self._all):
                await process.ended()
        for process in list(self._all):
            process.kill()
            await process.ended()


def _text(id: UUID | None) -> str | None:
    return None if id is None else str(id)


def _by_name(found: Mapping[str, Ancestor]) -> dict[str, list[Any]]:
    return {name: [one.name, one.outcome, one.result, one.error, _text(one.cause)] for name, one in found.items()}


def _raised(told: Mapping[str, Any]) -> Exception:
    """What was raised there. Only flowrun's own two signals become what they were; nothing is imported by name."""
    match told.get("again"):
        case ["snooze", delay, _]:
            return Snooze(delay)
        case ["retry", delay, reason]:
            return Retry(delay, reason)
        case _:
            said = [Said(frozenset(kinds), asks, delay) for kinds, asks, delay in told["said"]]
            return RaisedElsewhere(Failure(*told["failure"]), said)


def _log(told: dict[str, Any]) -> None:
    record = logging.makeLogRecord(told)
    logger = Log(record.name).logger if record.name.startswith("flowrun") else logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


async def _reported(report: Report, fraction: float, message: str | None) -> None:
    try:
        await report(fraction, message)
    except Exception:
        logger.exception("the progress of a handler in a process could not be stored")


async def _nowhere(fraction: float, message: str | None) -> None:
    """Nobody reports progress while a module is imported."""
