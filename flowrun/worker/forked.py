"""What becomes of a child that code of a job forks: it ends before it runs anything of the worker that it is a copy of.

A copy of the worker in a second process would read and write on the same connections. A child that ends by itself, or
becomes another program, is left alone: multiprocessing, ``subprocess``, ``os._exit()``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_OWN = str(Path(__file__).parents[1]) + os.sep
_PLAIN = f"multiprocessing{os.sep}popen_fork"
"""Its children never come back to who forked them."""
_COMPLAINT = (
    b"flowrun: a child that a handler forked (os.fork) came back from the handler and is ended; "
    b"end it with os._exit(), or use multiprocessing or subprocess\n"
)


class _Edge:
    """Where a child would leave the job's code: it ends there, by a return, a wait or an exception."""

    def __init__(self, frame: FrameType) -> None:
        self._code: int | None = None
        frame.f_trace_lines = False
        frame.f_trace = self

    def __call__(self, _frame: FrameType, event: str, told: Any) -> _Edge:
        if event == "exception":
            self._code = _asked(told[1]) if issubclass(told[0], SystemExit) else None
        elif event == "return":
            self._end()
        return self

    def _end(self) -> NoReturn:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        if self._code is None:
            with contextlib.suppress(OSError):
                os.write(2, _COMPLAINT)
        os._exit(1 if self._code is None else self._code)


def _asked(error: SystemExit) -> int:
    """The exit code that a child's ``sys.exit()`` names."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _no_calls(_frame: FrameType, _event: str, _told: Any) -> None:
    """Nothing but the edge is traced."""


def _in_child() -> None:
    """Find the outermost frame of the job's code: the one that flowrun called."""
    frame, edge = sys._getframe(1), None
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN):
        if _PLAIN in frame.f_code.co_filename:
            return
        edge, frame = frame, frame.f_back  # type: ignore[assignment]
    if frame is not None and edge is not None:
        _Edge(edge)
        sys.settrace(_no_calls)


@cache
def watch() -> None:
    """From now on, look at whatever this process forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
