"""Moments as PostgreSQL has them, read without a loss of the whole row: it knows years that Python does not.

A year of 294,276, one before Christ, or infinity in one row would break every list that it stands in, with an error
that names no row. They are read as the last and the first days that Python can count on from.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST, LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
"""A day off the ends, so that every zone has them."""
_FIRST, _LAST = (FIRST - _EPOCH) // _MICROSECOND, (LAST - _EPOCH) // _MICROSECOND


def decode(value: tuple[int]) -> datetime:
    """Microseconds since 2000, as a moment."""
    return _EPOCH + timedelta(microseconds=min(max(value[0], _FIRST), _LAST))


def encode(value: Any) -> tuple[int]:
    """A moment, as microseconds since 2000. Without a zone it is local time, as the driver itself has it."""
    if not isinstance(value, datetime):
        raise TypeError(f"a datetime is needed, not {type(value).__name__}")
    return ((value - _EPOCH if value.tzinfo is not None else value.astimezone(UTC) - _EPOCH) // _MICROSECOND,)


async def read_any(connection: Any) -> None:
    """Have a connection read every moment that can be stored."""
    await connection.set_type_codec("timestamptz", schema="pg_catalog", encoder=encode, decoder=decode, format="tuple")
