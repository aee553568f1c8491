"""Named points at which a test lets the process die. Nothing happens at them unless FLOWRUN_CRASH_AT names one.

``FLOWRUN_CRASH_AT="settle.written"`` dies when that point is reached first, ``"settle.written:3"`` at the third time.
Within a process, :func:`arm` has a point cut the link to the database instead, once.
"""

from __future__ import annotations

import os
from itertools import count

STATUS = 137
"""As of a process that was killed."""

_name, _, _time = os.environ.get("FLOWRUN_CRASH_AT", "").partition(":")
_times = count(1)
_armed: dict[str, int] = {}
"""Points that cut the link, by how many times they let pass before."""


def point(name: str) -> None:
    """Die here, at once and without a goodbye, if this is the point and its time has come."""
    if name == _name and next(_times) == int(_time or 1):
        os._exit(STATUS)
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            del _armed[name]
            raise ConnectionResetError(f"cut off at {name!r}, as a test wants it")


def arm(name: str, time: int = 1) -> None:
    """At the ``time``-th passing of a point from now on, raise what a broken link raises."""
    _armed[name] = time


def disarm(name: str) -> None:
    """Let a point be one like others again."""
    _armed.pop(name, None)
