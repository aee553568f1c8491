"""Values to JSON and back. The only importer of orjson.

What JSON or PostgreSQL's jsonb cannot carry is refused here, with the place named: NUL characters, NaN and infinities,
lone surrogates, whole numbers beyond 64 bits, keys that are not text, circular or too deep structures, oversize.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import orjson

from flowrun.errors import NotStorable

__all__ = ["NotStorable", "dump", "dump_as", "load", "probe", "size_words"]

MAX_DEPTH = 200
_TRUNCATED = "... (truncated {} characters)"


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


def dump_as(value: Any, to_plain: Callable[[Any], Any], *, limit: int) -> str:
    """The same; of a type that JSON does not have, as ``to_plain`` (some annotation) writes it."""
    try:
        return dump(value, limit=limit)
    except NotStorable as error:
        if not error.foreign:
            raise
        try:
            plain = to_plain(value)
        except (ValueError, TypeError, RecursionError):
            raise error from None
        return dump(plain, limit=limit)


def probe(value: Any) -> bool:
    """Refuse what a conversion by annotations would hide or choke on: NaN and infinities, circles, too much depth.

    Returns whether some dict in it has keys that are not text. Types that JSON does not have are not looked at: an
    annotation may say how to write them. Raises NotStorable.
    """
    odd_keys = False
    for item, path in _walk(value):
        if type(item) is dict and not all(type(key) is str for key in item):
            odd_keys = True
        elif isinstance(item, float):
            _check_scalar(item, path)
    return odd_keys


def size_words(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1024 / 1024:.1f} MiB" if size >= 1024 * 1024 else f"{size:,} bytes"


def clean_text(text: str, limit: int, beyond: int = 0) -> str:
    """``text`` as PostgreSQL can store it: no NUL, no lone surrogate, at most ``limit`` characters.

    ``beyond``: so many more there were, and are not given.
    """
    text = (
        text[: limit + 1].replace("\x00", "\ufffd")
        if len(text) <= limit
        else (text[:limit].replace("\x00", "\ufffd") + _TRUNCATED.format(len(text) - limit + beyond))
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
    for item, path in _walk(value):
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise NotStorable(path, f"a key of type {type(key).__name__}; JSON keys are text")
                _check_scalar(key, f"{path} (key)")
        elif not isinstance(item, list | tuple) and _fields(item) is None:
            _check_scalar(item, path)


def _walk(value: Any) -> Iterator[tuple[Any, str]]:
    """Everything in ``value`` with its path, outer before inner. Raises NotStorable for circles and too much depth."""
    stack: list[tuple[Any, str, int, tuple[int, ...]]] = [(value, "", 0, ())]
    while stack:
        item, path, depth, above = stack.pop()
        if id(item) in above:
            raise NotStorable(path, "circular reference")
        if depth > MAX_DEPTH:
            raise NotStorable("", f"nested deeper than {MAX_DEPTH} levels")
        yield item, path
        if isinstance(item, dict):
            inside = [(inner, _joined(path, str(key))) for key, inner in item.items()]
        elif isinstance(item, list | tuple | set | frozenset):
            inside = [(inner, f"{path}[{number}]") for number, inner in enumerate(item)]
        elif (fields := _fields(item)) is not None:
            inside = [(inner, _joined(path, name)) for name, inner in fields.items()]
        else:
            continue
        stack.extend((inner, where, depth + 1, (*above, id(item))) for inner, where in reversed(inside))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if path else name[:60]


def _fields(item: Any) -> dict[str, Any] | None:
    """What a dataclass or a pydantic model holds; None for anything else."""
    if isinstance(item, type):
        return None
    if hasattr(item, "__dataclass_fields__"):
        return {name: getattr(item, name, None) for name in item.__dataclass_fields__}
    if hasattr(item, "__pydantic_fields__"):
        return dict(vars(item))
    return None


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
