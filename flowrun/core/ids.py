"""The ids of a flow's jobs: alike, but for a number in their middle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload
from uuid import UUID

_NUMBER = 3
"""Bytes of the number."""


class Ids(Sequence[UUID]):
    """``count`` growing ids, each made when it is asked for: ``head``, its number, ``tail``."""

    __slots__ = ("_count", "_end", "_head", "_make", "_tail")

    def __init__(self, count: int, head: bytes, tail: bytes, make: Callable[[bytes], UUID]) -> None:
        self._count = count
        self._head = head
        self._tail = tail
        self._make = make
        self._end = -1, b""

    def stand_out(self, number: int, id: UUID) -> None:
        """Let one be another: that of the flow's end."""
        self._end = number, id.bytes

    def raw(self, number: int) -> bytes:
        """The 16 bytes of an id."""
        if number == self._end[0]:
            return self._end[1]
        return self._head + number.to_bytes(_NUMBER, "big") + self._tail

    def some(self, numbers: Iterable[int]) -> list[bytes]:
        """The bytes of several."""
        head, tail, (end, own) = self._head, self._tail, self._end
        return [own if at == end else head + at.to_bytes(_NUMBER, "big") + tail for at in numbers]

    def raws(self, start: int, stop: int) -> list[bytes]:
        """The bytes of some that follow each other."""
        head, tail, end = self._head, self._tail, self._end[0]
        found = [head + number.to_bytes(_NUMBER, "big") + tail for number in range(start, stop)]
        if start <= end < stop:
            found[end - start] = self._end[1]
        return found

    @overload
    def __getitem__(self, number: int) -> UUID: ...
    @overload
    def __getitem__(self, number: slice) -> list[UUID]: ...
    def __getitem__(self, number: int | slice) -> UUID | list[UUID]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._make(self.raw(number))

    def __iter__(self) -> Iterator[UUID]:
        return map(self._make, self.raws(0, self._count))

    def __len__(self) -> int:
        return self._count
