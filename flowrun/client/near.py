"""What is said of a name that is not there: those that look like it, and some that are."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from itertools import islice

from flowrun import codec
from flowrun.errors import NotFound

MOST = 12
"""Names that are listed."""


def no_node(flow: str, name: object, known: Collection[str]) -> NotFound:
    """The error for a node that a flow does not have.

    >>> str(no_node("order", "invoise", ["pay", "invoice"]))
    "flow 'order' has no node 'invoise'; did you mean 'invoice'? it has pay, invoice"
    """
    near = difflib.get_close_matches(name, known, n=3) if isinstance(name, str) and len(name) <= 400 else []
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    shown = ", ".join(islice(known, MOST)) + (f" and {len(known) - MOST:,} more" if len(known) > MOST else "")
    asked = repr(codec.clean_text(name, 80)) if isinstance(name, str) else codec.clean_text(repr(name), 80)
    return NotFound(f"flow {flow!r} has no node {asked}; {hint}it has {shown or 'none'}")
