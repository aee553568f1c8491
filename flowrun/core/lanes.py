"""Lanes: where jobs wait that may not all run at once.

A job that asks for a limit, a sequence or a fair share does not wait in its queue itself but in a lane of it, whose
name says all that a claim must know: ``queue ␟ fair key ␟ how many at once ␟ limit's key ␟ "h" if a retry holds it``.
To everything else a lane is a queue like others, so releasing a job costs the same wherever it waits, and claims from
the queue itself never meet the jobs of its lanes. The separator cannot stand in any name."""

from __future__ import annotations

from typing import Final

from flowrun.core.options import JobOptions

SEPARATOR: Final = "\x1f"


def place(queue: str, type: str, options: JobOptions) -> str:
    """Where a job waits: its queue, or a lane of it."""
    fair, limit, sequence = options.get("fair_key"), options.get("limit"), options.get("sequence")
    if fair is None and limit is None and sequence is None:
        return queue
    at_once, key, hold = "", "", ""
    if sequence is not None:
        at_once, key, hold = "1", f"sequence:{sequence}", "h"
    elif isinstance(limit, int):
        at_once, key = str(limit), f"type:{type}"
    elif limit is not None:
        key, at_once = f"key:{limit[0]}", str(limit[1])
    return SEPARATOR.join((queue, fair or "", at_once, key, hold))


def queue_of(place: str) -> str:
    """The queue of a place where jobs wait."""
    return place.partition(SEPARATOR)[0]


def key_of(place: str) -> str | None:
    """The slot's name that a job takes up there, besides that of its queue."""
    parts = place.split(SEPARATOR)
    return (parts[3] or None) if len(parts) > 3 else None


def at_once(place: str) -> int | None:
    """How many jobs may run there at once, of those that name this number; None: it says none that can be read."""
    number = place.split(SEPARATOR)[2]
    return int(number) if len(number) <= 9 and number.isascii() and number.isdigit() else None


def is_fair(place: str) -> bool:
    """Whether it takes turns with the other lanes of its queue."""
    parts = place.split(SEPARATOR)
    return len(parts) > 1 and parts[1] != ""


def holds(place: str) -> bool:
    """Whether a job that is to be retried holds up those behind it."""
    return place.endswith(SEPARATOR + "h")


def is_lane(place: str) -> bool:
    """Whether jobs that wait there need a look at limits."""
    return SEPARATOR in place
