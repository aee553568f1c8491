"""What the processes of a run write down outside the database: append-only files, one line an event, written at once.

Times are those of the machine's monotonic clock, which all processes of a run share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Journal:
    """One process's. A line survives a kill of the process that wrote it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._pid = os.getpid()

    def write(self, event: str, **about: Any) -> None:
        line = {"event": event, "at": time.monotonic(), "pid": self._pid, **about}
        os.write(self._file, json.dumps(line, default=str).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Line:
    event: str
    at: float
    pid: int
    about: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.at:.3f} pid {self.pid} {self.event} {self.about}"


def read(directory: Path) -> list[Line]:
    """All lines of all journals, in the order of time."""
    lines = []
    for file in directory.glob("*.journal"):
        for text in file.read_text().splitlines():
            about = json.loads(text)
            lines.append(Line(about.pop("event"), about.pop("at"), about.pop("pid"), about))
    return sorted(lines, key=lambda line: line.at)


@dataclass
class Attempt:
    """From a handler's first line to its last, or to the death of its process."""

    job: str
    number: int
    pid: int
    start: float
    end: float = float("inf")
    ended: bool = False
    """Its handler returned or raised."""
    about: dict[str, Any] = field(default_factory=dict)


def attempts(lines: list[Line], deaths: dict[int, float]) -> list[Attempt]:
    """What ran when. ``deaths``: by process, when it was gone."""
    found: list[Attempt] = []
    running: dict[tuple[int, int], Attempt] = {}
    for line in lines:
        if line.event == "start":
            attempt = Attempt(line.about["job"], line.about["n"], line.pid, line.at, about=line.about)
            attempt.end = deaths.get(line.pid, float("inf"))
            running[line.pid, line.about["run"]] = attempt
            found.append(attempt)
        elif line.event == "end":
            attempt = running.pop((line.pid, line.about["run"]))
            attempt.end, attempt.ended = line.at, True
            attempt.about = {**attempt.about, **line.about}
    return found


def of(lines: list[Line], event: str) -> Iterator[Line]:
    return (line for line in lines if line.event == event)
