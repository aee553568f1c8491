"""New ids. UUIDv7, made by the client: a whole flow is compiled without asking the database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from uuid import UUID

from flowrun.core.ids import Ids
from flowrun.errors import InvalidFlow

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

__all__ = ["flow_ids", "job_id", "uuid7"]

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
    if count >> (_ROOM_BITS - _SHARD_BITS):
        raise InvalidFlow(f"a flow of {count:,} nodes; the most is {(1 << (_ROOM_BITS - _SHARD_BITS)) - 1:,}")
    flow = uuid7().int
    shard = flow & ((1 << _SHARD_BITS) - 1)
    random = uuid7().int >> (_ROOM_BITS + 1)
    head, tail = random.to_bytes(12, "big"), bytes([shard])
    return make(flow.to_bytes(16, "big")), Ids(count, head, tail, make)
