"""Named points at which a test lets the process die. Nothing happens at them unless FLOWRUN_CRASH_AT names one.

``FLOWRUN_CRASH_AT="settle.written"`` dies when that point is reached first, ``"settle.written:3"`` at the third time.
"""

from __future__ import annotations

import os
from itertools import count

STATUS = 137
"""As of a process that was killed."""

_name, _, _time = os.environ.get("FLOWRUN_CRASH_AT", "").partition(":")
_times = count(1)


def point(name: str) -> None:
    """Die here, at once and without a goodbye, if this is the point and its time has come."""
    if name == _name and next(_times) == int(_time or 1):
        os._exit(STATUS)
