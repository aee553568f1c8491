"""The names by which types of exceptions are stored and recognised, in whatever program they were defined."""

from __future__ import annotations

import sys

_PROGRAM = ("__main__", "__mp_main__")
"""What a program that was started calls itself, and what it is called in the process of a handler."""


def qualified(kind: type[BaseException]) -> str:
    """The name an exception type is stored and recognised by; nothing is ever imported by it.

    What is defined in the program that was started has the name that others import it by: ``shop.py`` is ``shop``.
    """
    module = _program() or kind.__module__ if kind.__module__ in _PROGRAM else kind.__module__
    return f"{module}.{kind.__qualname__}"


def names_of(error: BaseException) -> frozenset[str]:
    """The names by which an exception is recognised: of its type and of those above it."""
    kinds = type(error).__mro__
    return frozenset({qualified(kind) for kind in kinds} | {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds})


def _program() -> str | None:
    """The name by which the program that was started is imported elsewhere; None: it has none."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = str(getattr(main, "__file__", None) or "").replace("\\", "/").rpartition("/")[2]
    return file.removesuffix(".py") or None
