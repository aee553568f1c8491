"""Calls that a cancellation must not cut in the middle."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def shielded(call: Awaitable[T]) -> T:
    """Await ``call`` to its end; a cancellation counts afterwards.

    Cancelled inside a transaction, asyncpg under anyio skips the rollback: cancellation never crosses one.
    """
    answer: list[T] = []
    with anyio.CancelScope(shield=True):
        answer.append(await call)
    return answer[0]
