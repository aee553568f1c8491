"""Values to JSON and back. The only importer of orjson.

What JSON or PostgreSQL's jsonb cannot carry is refused here, with the place named: NUL characters, NaN and infinities,
lone surrogates, whole numbers beyond 64 bits, keys that are not text, circular or too deep structures, oversize.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import orjson

from flowrun.core.references import Reference
from flowrun.errors import NotStorable
from flowrun.shapes import shape_of

__all__ = ["NotStorable", "dump", "dump_as", "load", "probe", "size_words"]

MAX_DEPTH = 200
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS
_EXPONENT = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.]*e\+?[0-9]+')
_TRUNCATED = "... (truncated {} characters)"


load: Callable[[str | bytes], Any] = orjson.loads


def dump(value: Any, *, limit: int | None = None) -> str:
    """``value`` as JSON text. Raises NotStorable.

    dict, list, tuple (a list then), text, whole numbers of 64 bits, floats, booleans, None; and, as their text or
    their fields: datetime, date, time, UUID, Enum, Decimal, and the dataclasses and pydantic models that their own
    class reads again as they were.
    """
    try:
        raw = orjson.dumps(value, _default, _OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        _explain(value)
        raise NotStorable("", str(error)) from None
    if b"null" in raw or b"\\u0000" in raw:
        # orjson writes NaN as null, and NUL as an escape that jsonb refuses.
        _explain(value)
    if b"e+" in raw:
        raw = _EXPONENT.sub(_spelled_out, raw)
    if limit is not None and len(raw) > limit:
        raise NotStorable("", f"{size_words(len(raw))} as JSON, the limit is {size_words(limit)}")
    return raw.decode()


def dump_as(value: Any, to_plain: Callable[[Any], Any], *, limit: int | None = None) -> str:
    """The same, as ``to_plain`` (some annotation) writes it. Raises NotStorable, and what ``to_plain`` does.

    What that would hide or choke on is refused before: NaN, which becomes null, circles and too much depth.
    """
    return dump(plain_as(value, to_plain), limit=limit)


def plain_as(value: Any, to_plain: Callable[[Any], Any]) -> Any:
    """``value`` as data that JSON has, as :func:`dump_as`."""
    kind = type(value)
    if kind is str or kind is int or kind is bool:
        return to_plain(value)
    probe(value)
    try:
        return to_plain(value)
    except NotStorable as error:
        if error.foreign and not error.path:
            _explain(value)  # where it is
        raise


def probe(value: Any) -> None:
    """Refuse what a conversion by annotations would hide or choke on: NaN and infinities, circles, too much depth.

    And references where they are not found: inside dataclasses, models and sets. Types that JSON does not have are not
    looked at: an annotation may say how to write them. Raises NotStorable.
    """
    for item, path in _walk(value):
        if isinstance(item, float | Reference):
            _check_scalar(item, path)


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
    if isinstance(value, Decimal):
        return str(value)
    kind = type(value)
    if hasattr(kind, "__pydantic_fields__") or hasattr(kind, "__dataclass_fields__"):
        return shape_of(kind).plain(value)
    raise TypeError(f"{kind.__module__}.{kind.__qualname__}")


def _spelled_out(number: re.Match[bytes]) -> bytes:
    """A float of 1e16 or more without its exponent: jsonb would make it a whole number, with other digits."""
    text = number.group()
    return text if text.startswith(b'"') else f"{Decimal(text.decode()):f}.0".encode()


def _explain(value: Any) -> None:
    """Find the place in ``value`` that cannot be stored and raise NotStorable; return if there is none."""
    probe(value)
    for item, path in _walk(value):
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise NotStorable(path, f"a key of type {type(key).__name__}; JSON keys are text")
                _check_scalar(key, f"{path} (key)")
        elif not isinstance(item, list | tuple):
            if _fields(item) is not None:
                _check_object(item, path)
            else:
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


def _check_object(item: Any, path: str) -> None:
    """What holds fields: whether its own class reads them again."""
    try:
        _default(item)
    except NotStorable as error:
        inside = _joined(path, error.path) if error.path else path
        raise NotStorable(inside, error.reason, foreign=error.foreign) from None
    except (TypeError, ValueError) as error:
        raise NotStorable(path, str(error)[:200], foreign=True) from None


def _check_scalar(item: Any, path: str) -> None:
    if isinstance(item, Reference):
        raise NotStorable(
            path,
            "a reference to a parent's result, which is found in lists, tuples and values of dicts, and in no other "
            "object; pass it as an argument of its own",
        )
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
            orjson.dumps(item, _default, _OPTIONS)
        except (TypeError, ValueError, RecursionError):
            kind = type(item)
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise NotStorable(
                path, f"{name} cannot be stored as JSON; pass plain data or its text", foreign=True
            ) from None


UNREADABLE = {"...": "it cannot be read: nothing that flowrun writes"}
"""What people are shown where something else stands than can be read."""


def look(text: str | None) -> Any:
    """The value of ``text`` for people, who are to see all else though somebody has stored what cannot be read here."""
    try:
        return None if text is None else load(text)
    except (ValueError, RecursionError):
        return UNREADABLE


def look_into(text: str | None) -> dict[str, Any]:
    """The same of what should be an object; another value is shown inside of one."""
    found = look(text)
    return {} if found is None else found if isinstance(found, dict) else {"...": found}
