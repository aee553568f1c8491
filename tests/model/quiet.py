"""What fails here fails on purpose: nothing is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No word from flowrun's loggers, but for what is critical; afterwards they speak as before."""
    logger = logging.getLogger("flowrun")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
