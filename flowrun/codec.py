"""Values to JSON and back. The only importer of orjson.

What JSON or PostgreSQL's jsonb cannot carry is refused here, with the place named: NUL characters, NaN and infinities,
lone surrogates, whole numbers beyond 64 bits, keys that are not text, circular or too deep structures, oversize.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

__all__ = ["NotStorable", "dump", "load", "size_words"]

MAX_DEPTH = 200
_TRUNCATED = "... (truncated {} characters)"


class NotStorable(Exception):
    """A value that cannot be stored; ``path`` says where in it, ``reason`` why. Never holds the value itself."""

    def __init__(self, path: str, reason: str, *, foreign: bool = False) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason
        self.foreign = foreign
        """It is of a type JSON does not have; an annotation may say how to write it."""


load: Callable[[str | bytes], Any] = orjson.loads


def dump(value: Any, *, limit: int | None = None) -> str:
    """``value`` as JSON text. Raises NotStorable.

    dict, list, tuple (a list then), text, whole numbers of 64 bits, floats, booleans, None; and, as their text or
    their fields: datetime, date, time, UUID, Enum, Decimal, dataclasses, pydantic models.
    """
    try:
        raw = orjson.dumps(value, default=_default)
    except (TypeError, ValueError, RecursionError) as error:
        _explain(value)
        raise NotStorable("", str(error)) from None
    if b"null" in raw or b"\\u0000" in raw:
        # orjson writes NaN as null, and NUL as an escape that jsonb refuses.
        _explain(value)
    if limit is not None and len(raw) > limit:
        raise NotStorable("", f"{size_words(len(raw))} as JSON, the limit is {size_words(limit)}")
    return raw.decode()


def size_words(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1024 / 1024:.1f} MiB" if size >= 1024 * 1024 else f"{size:,} bytes"


def clean_text(text: str, limit: int) -> str:
    """``text`` as PostgreSQL can store it: no NUL, no lone surrogate, at most ``limit`` characters."""
    text = (
        text[: limit + 1].replace("\x00", "\ufffd")
        if len(text) <= limit
        else (text[:limit].replace("\x00", "\ufffd") + _TRUNCATED.format(len(text) - limit))
    )
    return text.encode("utf-8", "replace").decode("utf-8")


def _default(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


def _explain(value: Any) -> None:
    """Find the place in ``value`` that cannot be stored and raise NotStorable; return if there is none."""
    stack: list[tuple[Any, str, int, tuple[int, ...]]] = [(value, "", 0, ())]
    while stack:
        item, path, depth, above = stack.pop()
        if id(item) in above:
            raise NotStorable(path, "circular reference")
        if depth > MAX_DEPTH:
            raise NotStorable("", f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, dict):
            for key, inner in reversed(item.items()):
                if not isinstance(key, str):
                    raise NotStorable(path, f"a key of type {type(key).__name__}; JSON keys are text")
                _check_scalar(key, f"{path} (key)")
                stack.append((inner, f"{path}.{key[:60]}" if path else key[:60], depth + 1, (*above, id(item))))
        elif isinstance(item, list | tuple):
            stack.extend(
                (inner, f"{path}[{number}]", depth + 1, (*above, id(item)))
                for number, inner in reversed(list(enumerate(item)))
            )
        elif hasattr(item, "__dataclass_fields__") and not isinstance(item, type):
            stack.extend(
                (getattr(item, name), f"{path}.{name}" if path else name, depth + 1, (*above, id(item)))
                for name in reversed(list(item.__dataclass_fields__))
            )
        else:
            _check_scalar(item, path)


def _check_scalar(item: Any, path: str) -> None:
    if isinstance(item, str):
        if "\x00" in item:
            raise NotStorable(path, "contains a NUL character, which PostgreSQL's JSON cannot store")
        if not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise NotStorable(path, "contains a lone surrogate, which is not valid Unicode") from None
    elif isinstance(item, float):
        if item != item or item in (float("inf"), float("-inf")):
            raise NotStorable(path, f"{item} cannot be stored: JSON has no NaN and no infinity")
    elif isinstance(item, int):
        if not -(2**63) <= item < 2**64:
            raise NotStorable(path, "a whole number beyond 64 bits; pass it as text")
    else:
        try:
            orjson.dumps(item, default=_default)
        except (TypeError, ValueError, RecursionError):
            kind = type(item)
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise NotStorable(
                path, f"{name} cannot be stored as JSON; pass plain data or its text", foreign=True
            ) from None
