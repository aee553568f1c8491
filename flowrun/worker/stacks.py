"""Where code stands that does not end, for people to read. Never what its variables hold."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_OWN = str(Path(__file__).parent)
DEEPEST = 30
"""Frames that are shown, the innermost."""


def of_task(task: asyncio.Task[Any]) -> str:
    """Where the handler stands that ``task`` awaits, flowrun's own frames left out."""
    return _written(list(_awaited(task.get_coro())))


def of_thread(ident: int) -> str:
    """Where the thread stands, flowrun's own frames left out; empty if it has ended."""
    frame = sys._current_frames().get(ident)
    return _written(list(traceback.walk_stack(frame))[::-1]) if frame is not None else ""


def _awaited(coroutine: Any) -> Iterator[tuple[FrameType, int]]:
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            return
        yield frame, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _written(frames: list[tuple[FrameType, int]]) -> str:
    """Outermost first, without what leads from the program to the handler."""
    start = 0
    for number, (frame, _) in enumerate(frames):
        if frame.f_code.co_filename.startswith(_OWN):
            start = number + 1
        elif start:
            break
    shown = frames[start:] or frames
    return "".join(traceback.StackSummary.extract(iter(shown[-DEEPEST:])).format()).rstrip()
