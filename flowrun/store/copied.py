"""Rows as PostgreSQL's binary format of `copy` has them, for the few shapes of which a large flow has many.

The driver could do it, at 3 µs a node: it looks at each value of each row. Here most of a row is the same as in the row
before, and is only joined to what is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from functools import lru_cache
from typing import Final

from flowrun.core.plan import JobRow, Source
from flowrun.core.states import FIRST_TEST

JOBS: Final = ("id", "name", "args", "flow_id", "kind", "queue", "type", "priority", "optional", "options")
EDGES: Final = ("parent_id", "child_id", "condition")
BLOCKED: Final = ("id", "need", "open")

CHUNK: Final = 1 << 16
"""Bytes that are sent at once, about."""
ROWS: Final = 256
"""Rows that are joined before it is looked how many bytes they are."""

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_UUID: Final = (16).to_bytes(4, "big")


async def sent(rows: Iterable[bytes]) -> AsyncIterator[bytes]:
    """What is to be sent for ``rows``, in pieces of some size."""
    pieces, size = [_SIGNATURE], 0
    for row in rows:
        pieces.append(row)
        size += len(row)
        if size >= CHUNK:
            yield b"".join(pieces)
            pieces, size = [], 0
    pieces.append(_END)
    yield b"".join(pieces)


def jobs(alike: Iterable[tuple[JobRow, bytes, str, str]]) -> Iterator[bytes]:
    """Rows of ``jobs``, some at a time: each like a given one, but for its id, its name and its arguments."""
    head = len(JOBS).to_bytes(2, "big") + _UUID
    tails: dict[JobRow, bytes] = {}
    last, tail = None, b""
    pieces: list[bytes] = []
    for row, id, name, args in alike:
        if row is not last:
            last = row
            if row not in tails:
                tails[row] = _same(row)
            tail = tails[row]
        named, given = name.encode(), args.encode()
        pieces += (
            head, id, _size(len(named)), named, _size(len(given) + 1), b"\x01", given, tail,
        )  # fmt: skip
        if len(pieces) >= 8 * ROWS:
            yield b"".join(pieces)
            pieces = []
    yield b"".join(pieces)


def edges(source: Source) -> Iterator[bytes]:
    """Rows of ``edges``, those of a parent at a time."""
    head = len(EDGES).to_bytes(2, "big") + _UUID
    for parent, children in source.edges_by_parent([_number(2, condition) for condition in range(FIRST_TEST)]):
        first = head + parent + _UUID
        yield first + first.join(children)


def blocked(counters: Iterable[tuple[bytes, tuple[int, int]]]) -> Iterator[bytes]:
    """Rows of ``blocked``, some at a time."""
    head = len(BLOCKED).to_bytes(2, "big") + _UUID
    tails: dict[tuple[int, int], bytes] = {}
    pieces: list[bytes] = []
    for id, numbers in counters:
        if numbers not in tails:
            tails[numbers] = b"".join([_number(4, number) for number in numbers])
        pieces += (head, id, tails[numbers])
        if len(pieces) >= 3 * ROWS:
            yield b"".join(pieces)
            pieces = []
    yield b"".join(pieces)


def _same(row: JobRow) -> bytes:
    """What follows a job's id, name and arguments."""
    flow = _NULL if row.flow_id is None else _UUID + row.flow_id.bytes
    options = _NULL if row.options is None else _sized(b"\x01" + row.options.encode())
    return b"".join(
        (
            flow,
            _number(2, row.kind),
            _sized(row.queue.encode()),
            _sized(row.type.encode()),
            _number(2, row.priority),
            _sized(b"\x01" if row.optional else b"\x00"),
            options,
        )
    )


@lru_cache(maxsize=4096)
def _size(length: int) -> bytes:
    return length.to_bytes(4, "big")


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _number(size: int, value: int) -> bytes:
    return size.to_bytes(4, "big") + int(value).to_bytes(size, "big", signed=True)
