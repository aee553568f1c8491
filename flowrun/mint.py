"""New ids. UUIDv7, made by the client: a whole flow is compiled without asking the database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import blake2b
from uuid import UUID

from flowrun.core.ids import Ids
from flowrun.errors import InvalidFlow

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

__all__ = ["flow_ids", "item_ids", "job_id", "uuid7"]

_SHARD_BITS = 8
_ROOM_BITS = 31
"""Of a UUIDv7's 32 low random bits, all but the highest: counting up in them cannot carry into what orders ids."""


def _from_bytes(raw: bytes) -> UUID:
    return UUID(bytes=raw)


def job_id() -> UUID:
    """An id for a single job; later ids are greater."""
    return uuid7()


def flow_ids(count: int, make: Callable[[bytes], UUID] = _from_bytes) -> tuple[UUID, Ids]:
    """An id for a flow, and ``count`` growing ids for its jobs, each made by ``make`` from its 16 bytes.

    All end in the same byte: that is the flow's shard number, computed and never looked up.
    """
    _check_room(count, "flow", "nodes")
    flow = uuid7().int
    shard = flow & ((1 << _SHARD_BITS) - 1)
    random = uuid7().int >> (_ROOM_BITS + 1)
    head, tail = random.to_bytes(12, "big"), bytes([shard])
    return make(flow.to_bytes(16, "big")), Ids(count, head, tail, make)


def item_ids(map: UUID, count: int, make: Callable[[bytes], UUID] = _from_bytes) -> Ids:
    """The ids of a map's items: who knows the map knows them before they are there.

    They are as if minted a millisecond after the map, so they come after it; the rest of their head is its id, hashed.
    """
    _check_room(count, "map", "items")
    moment = (map.int >> 80) + 1
    noise = int.from_bytes(blake2b(map.bytes, digest_size=8).digest(), "big")
    head = moment << 48 | 0x7 << 44 | (noise & 0xFFF) << 32 | 0b10 << 30 | (noise >> 12) & 0x3FFFFFFF
    return Ids(count, head.to_bytes(12, "big"), map.bytes[-1:], make)


def _check_room(count: int, what: str, of: str) -> None:
    if count >> (_ROOM_BITS - _SHARD_BITS):
        raise InvalidFlow(f"a {what} of {count:,} {of}; the most is {(1 << (_ROOM_BITS - _SHARD_BITS)) - 1:,}")
