"""The two streams: results on stdout, talk on stderr."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

from flowrun.redaction import redact

LOG_FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s"
_WIDE = 160


def show(text: str) -> None:
    """A line of a result."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A line for the person in front of it."""
    sys.stderr.write(text + "\n")
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
    return found


def log_to_stderr() -> None:
    """One line a record, unless the program set up its own logging."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=LOG_FORMAT,
    )
