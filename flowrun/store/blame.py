"""Whose fault an error is: that of the values a statement was sent with, or the server's. The one rule for all loops.

Nobody can list what a server may answer: out of memory, a full disk, a revoked right, a trigger or an extension that
raises. So only what is about *values* is listed here, and all else is the server's: it passes, and is tried again until
it does.
"""

from __future__ import annotations

from enum import Enum

import asyncpg

from flowrun.errors import DatabaseError, DatabaseUnavailable, FlowrunError
from flowrun.store.pool import FORBIDDEN, LOST, REPEATABLE, UNSENDABLE, sqlstate

_VALUES = ("21", "22", "23", "54")
"""Classes of SQLSTATE that are about values and rows: a cardinality, data, constraints, limits of size."""
_PYTHON = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What reading or writing a value raises that has another shape than it should."""
_UNANSWERED = ("08", "57P")
"""Classes of SQLSTATE after which nobody knows whether the statement was done: the session has ended."""


class Fault(Enum):
    """Whose fault an error is."""

    LINK = "link"
    """The connection's: what was sent may or may not have been done."""
    AGAIN = "again"
    """Nobody's: a deadlock, a lock that took too long. Nothing was done."""
    SERVER = "server"
    """The server's, or its administrator's: nothing was done, and it has nothing to do with what was sent."""
    DATA = "data"
    """The values', or the rows' that were met: sent again, it fails again."""


def fault_of(error: BaseException) -> Fault:
    """Whose fault ``error`` is, that one of flowrun's own statements raised."""
    if isinstance(error, UNSENDABLE):
        return Fault.DATA
    cause = error if isinstance(error, REPEATABLE) else error.__cause__
    if isinstance(cause, REPEATABLE):
        # Cancelled by a timeout of the role, or by a person: neither ends by itself.
        return Fault.SERVER if isinstance(cause, asyncpg.exceptions.QueryCanceledError) else Fault.AGAIN
    if isinstance(error, DatabaseError):
        return Fault.LINK if isinstance(error, DatabaseUnavailable) else Fault.SERVER
    if isinstance(error, (*FORBIDDEN, asyncpg.exceptions.InsufficientResourcesError)):
        return Fault.SERVER
    if isinstance(error, LOST):
        return Fault.LINK
    if isinstance(error, asyncpg.PostgresError):
        state = sqlstate(error) or ""
        if state.startswith(_UNANSWERED):
            return Fault.LINK
        return Fault.DATA if state.startswith(_VALUES) else Fault.SERVER
    return Fault.DATA if isinstance(error, (FlowrunError, *_PYTHON)) else Fault.SERVER


def was_answered(error: BaseException) -> bool:
    """Whether the server has said that the statement was not done."""
    return isinstance(error, asyncpg.PostgresError) and not (sqlstate(error) or "08").startswith(_UNANSWERED)
