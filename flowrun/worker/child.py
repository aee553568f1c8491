"""The process of a handler with ``process=True``: it calls functions for the worker that started it.

It talks to its worker over a socket, in frames of JSON: four bytes of length, then an object. It is asked to
``load`` a function or to ``run`` one; it answers ``loaded``, ``result`` or ``failed``, and sends ``log`` and
``progress`` at any time. It has no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

from flowrun import codec, importable
from flowrun.context import DONE, Job, Parents
from flowrun.core.outcome import says
from flowrun.core.parents import Ancestor
from flowrun.core.parents import Parents as Found
from flowrun.errors import FlowrunError, NotStorable, Retry, Snooze
from flowrun.registry import Definition, define
from flowrun.shapes import Misfit, not_stored
from flowrun.worker.failures import describe

LENGTH = struct.Struct(">I")
LONGEST_LOG = 100_000
"""Characters of a log record's text."""
LEAVE = 2.0
"""Seconds a process has to end when its worker closed the socket."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Link:
    """The socket. Any thread may send."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """One frame. A worker that is gone is noticed by who reads."""
        frame = codec.dump(message).encode()
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(LENGTH.pack(len(frame)) + frame)

    def receive(self) -> Any:
        """The next frame; None when the worker has closed its end, or is gone."""
        head = self._exactly(LENGTH.size)
        frame = None if head is None else self._exactly(LENGTH.unpack(head)[0])
        return None if frame is None else codec.load(frame)

    def _exactly(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self._socket.recv(count - len(parts))
            except OSError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)


def main(fd: int, parent: int) -> None:
    """Do what is asked until the worker closes the socket. The process ends with its worker, whatever it does then."""
    _end_with_parent(parent)
    os.set_inheritable(fd, False)
    link = Link(socket.socket(fileno=fd))
    begin = link.receive()
    if begin is None:
        return
    root = logging.getLogger()
    root.addHandler(_ToWorker(link))
    root.setLevel(begin["level"])
    child = Child(link, begin["main"])
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(link, requests, child), name="flowrun-link", daemon=True).start()
    while (request := requests.get()) is not None:
        child.do(request)


class Child:
    """The functions that were loaded, and calls of them."""

    def __init__(self, link: Link, program: Mapping[str, str | None]) -> None:
        self._link = link
        self._program = program
        self._loaded: dict[str, Definition] = {}
        self.busy = False

    def do(self, request: Mapping[str, Any]) -> None:
        """Answer one request. Never raises."""
        self.busy = True
        limit = request["error_text"]
        try:
            answer = self._run(request) if "run" in request else self._load(request)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a handler fails the job, not its process
            own = error.__traceback__
            while own is not None and own.tb_frame.f_code.co_filename in (__file__, importable.__file__):
                own = own.tb_next
            answer = {"failed": _told(error.with_traceback(own or error.__traceback__), limit)}
        self.busy = False
        self._link.send(**answer)

    def _load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        module, name = request["load"]
        found = importable.find(importable.Address(module, name), self._program)
        definition = getattr(found, "_definition", None)
        if not isinstance(definition, Definition):
            definition = define(found, request["type"], {})
        self._loaded[request["type"]] = definition
        return {"loaded": True}

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        definition = self._loaded[request["run"]]
        arguments = definition.decode(request["args"])
        if definition.job_parameter is not None:
            arguments[definition.job_parameter] = _job(request["job"], _Services(self._link))
        value = definition.function(**arguments)
        if inspect.isawaitable(value):  # a decorator may hide that the function is async
            value = asyncio.run(_awaited(value))
        try:
            return {"result": definition.returned.dump(value, limit=request["max_payload"])}
        except (NotStorable, Misfit) as error:
            reason = not_stored(error)
            failure = ["flowrun.ResultNotStorable", reason, None, None]
            return {"failed": {"failure": failure, "said": [[[], "discard", None]]}}


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


class _Services:
    """What a running job can ask for in a process of its own. See flowrun.context.Services."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def report(self, fraction: float, message: str | None) -> Awaitable[None]:
        self._link.send(progress=[fraction, None if message is None else codec.clean_text(message, LONGEST_LOG)])
        return DONE

    async def step(self, name: str, call: partial[Any]) -> Any:
        _refuse("job.step()")

    def transaction(self) -> Any:
        _refuse("job.transaction()")

    def spawn(self, spec: Any, after: Any, name: str | None, detached: bool) -> Any:
        _refuse("job.spawn()")


def _refuse(what: str) -> NoReturn:
    raise FlowrunError(
        f"{what} is not there in a handler with process=True, which runs without a database; "
        "make it a step of a flow, or an async handler"
    )


def _job(told: dict[str, Any], services: _Services) -> Job:
    found = told.pop("parents")
    by_name: list[dict[str, Any]] = found or [{}, {}]
    written, full = [{name: _ancestor(one) for name, one in names.items()} for names in by_name]
    for name in ("id", "flow_id", "dispatched_by"):
        told[name] = None if told[name] is None else UUID(told[name])
    told["tags"] = tuple(told["tags"])
    return Job(**told, parents=None if found is None else Parents(Found(written, full), codec.load), services=services)


def _ancestor(told: list[Any]) -> Ancestor:
    name, outcome, result, error, cause = told
    nobody = UUID(int=0)
    return Ancestor(
        nobody, None, 0, name, (), outcome, None, result, error, None if cause is None else UUID(cause)
    )  # fmt: skip


def _told(error: BaseException, limit: int) -> dict[str, Any]:
    """An exception as the worker needs it: what is kept of it, its types by name, and what it asks for."""
    again = None
    if isinstance(error, Retry | Snooze):
        delay = None if error.delay is None else float(error.delay)
        again = ["retry" if isinstance(error, Retry) else "snooze", delay, str(error)]
    return {
        # Masked and cut by the worker: what is masked must be whole.
        "failure": list(describe(error, 4 * limit, str)),
        "said": [[sorted(one.kinds), one.asks, one.delay] for one in says(error)],
        "again": again,
    }


class _ToWorker(logging.Handler):
    """Hands records to the worker's own logging."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        try:
            told = {
                "name": record.name, "levelno": record.levelno, "levelname": record.levelname,
                "created": record.created, "pathname": record.pathname, "lineno": record.lineno,
                "funcName": record.funcName, "filename": record.filename,
                "module": record.module, "msecs": record.msecs, "process": record.process,
                "processName": "flowrun-handler", "threadName": record.threadName,
                "msg": codec.clean_text(record.getMessage(), LONGEST_LOG),
            }  # fmt: skip
            if record.exc_info is not None and record.exc_info[0] is not None:
                told["exc_text"] = codec.clean_text("".join(traceback.format_exception(*record.exc_info)), LONGEST_LOG)
            extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
            plain = {key: value for key, value in extra.items() if isinstance(value, str | int | float | bool | None)}
            self._link.send(log={**plain, **told})
        except Exception:  # noqa: BLE001 - as every logging handler
            self.handleError(record)


def _listen(link: Link, requests: queue.SimpleQueue[Any], child: Child) -> None:
    """Pass requests on; when the worker is gone, or wants this process no more, end it."""
    while (request := link.receive()) is not None:
        requests.put(request)
    requests.put(None)
    if not child.busy:
        time.sleep(LEAVE)
    # Its own children too: it leads a process group.
    os.killpg(0, signal.SIGKILL)


def _end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its worker's thread ends: nobody listens while C code keeps the GIL."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
