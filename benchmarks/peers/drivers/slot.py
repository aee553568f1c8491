"""What a driver tells the runner: counters in a shared file, so that nobody asks the system under test while it works.

A worker process owns slot ``BENCH_SLOT`` of the file ``BENCH_SLOTS``: calls, first call, last call, ends. The clock is
CLOCK_MONOTONIC, one for all processes of a machine. Needs nothing but Python: it runs in every environment.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from pathlib import Path

SIZE = 64
SLOTS = 16
WARM_UP = (2, 5)
"""Chains, and steps of each, that are dispatched before a flow whose time counts ..."""
PAUSE = 0.5
"""... and seconds until they are surely done."""
now = time.monotonic_ns
_FORMAT = struct.Struct("<4q")


def asked() -> tuple[str, list[int]]:
    """The verb and its numbers, from the command line."""
    return sys.argv[1], [int(number) for number in sys.argv[2:]]


def create(file: Path) -> None:
    """An empty file of slots."""
    file.write_bytes(bytes(SIZE * SLOTS))


def read(file: Path) -> tuple[int, int, int, int]:
    """Calls, first call, last call and ends of all workers together."""
    data = file.read_bytes()
    slots = [_FORMAT.unpack_from(data, number * SIZE) for number in range(SLOTS)]
    calls, firsts, lasts, ends = zip(*slots, strict=True)
    return sum(calls), min(filter(None, firsts), default=0), max(lasts), sum(ends)


class Slot:
    """The counters of this worker process."""

    def __init__(self) -> None:
        self._at = int(os.environ.get("BENCH_SLOT", "0")) * SIZE
        with Path(os.environ["BENCH_SLOTS"]).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._calls = self._first = self._last = self._ends = 0
        self._wanted = int(os.environ.get("BENCH_WANTED", "0"))
        self._taken: list[int] = []

    def hit(self, sent: int = 0) -> None:
        """A handler was called; ``sent`` is when its job's dispatch began, where latency is measured."""
        self._last = now()
        self._calls += 1
        self._first = self._first or self._last
        if sent:
            self._taken.append(self._last - sent)
            if len(self._taken) == self._wanted:
                Path(os.environ["BENCH_LATENCIES"]).write_text("\n".join(map(str, self._taken)))
        self._write()

    def end(self) -> None:
        """A chain or a join has ended."""
        self._last = now()
        self._ends += 1
        self._write()

    def _write(self) -> None:
        _FORMAT.pack_into(self._map, self._at, self._calls, self._first, self._last, self._ends)
