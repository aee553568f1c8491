"""The two streams: results on stdout, talk on stderr."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderHook
from rich.segment import Segment

from flowrun.redaction import redact

LOG_FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s"
_WIDE = 160
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, sets a title, or turns text round: errors and results may hold it, and a terminal obeys."""


def visible(text: str) -> str:
    """``text`` with its control characters written out as JSON writes them: what is JSON stays so, and the same."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def show(text: str) -> None:
    """A line of a result."""
    sys.stdout.write(visible(text) + "\n")


def say(text: str) -> None:
    """A line for the person in front of it."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """An error, in one line."""
    say("flowrun: " + redact(" ".join(text.split())))


def mute() -> None:
    """Whoever read stdout is gone: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """For pictures on stdout. A file or a pipe has no width of its own: lines are not cut at 80 there."""
    found = Console(highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found = Console(highlight=False, width=_WIDE)
    found.push_render_hook(_Visible())
    return found


class _Visible(RenderHook):
    """Colours are rich's own; what else would steer the terminal came with the text."""

    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        return [_Plain(one) for one in renderables]


class _Plain:
    """Something to print, its texts without control characters."""

    def __init__(self, held: RenderableType) -> None:
        self._held = held

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        segments: Iterable[Segment] = console.render(self._held, options)
        for text, style, control in segments:
            yield Segment(text if control else visible(text), style, control)


def log_to_stderr() -> None:
    """One line a record, unless the program set up its own logging."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=LOG_FORMAT,
    )
