"""Endings that take long to settle, since very many jobs are written with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowrun.core.attempt import Ending
from flowrun.core.growth import Expansion, Outbox

LARGE = 1000
"""Jobs that are written with one ending, from which on it is settled aside: some 20 ms. One with less takes no longer
than a full batch does, and a lease of its own would be a statement more for each."""

UNWRITTEN = 500_000
"""Jobs that wait to be written, beyond which nothing more is claimed: about half a gigabyte."""


def too_many(endings: Iterable[Ending]) -> bool:
    """Whether so much waits to be written with these."""
    return sum(map(rows, endings)) > UNWRITTEN


def rows(ending: Ending) -> int:
    """How many jobs are written with it: what its handler dispatched and spawned, or the items of a map."""
    more: Any = ending.more
    if isinstance(more, Outbox):
        growth = 0 if more.growth is None else more.growth.plan.size
        return growth + sum(plan.size for plan in more.plans)
    return len(more.items) if isinstance(more, Expansion) else 0
