"""Values to JSON and back: refused, or the same again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from flowrun import codec
from flowrun.errors import NotStorable


class Colour(Enum):
    RED = "red"
    ODD = ("a", 1)


@dataclass
class Point:
    x: Any
    y: Any = None


class Hidden:
    pass


texts = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["", "\x00", "a\x00b", "\ud800", "null", "\\u0000", "\u2028", "😀", '"', "NaN", "flowrun:sealed:1:k:x"]
)
whole = st.integers(-(2**70), 2**70) | st.sampled_from([2**53 + 1, -(2**63), 2**64 - 1, 2**64, 10**400])
floats = st.floats() | st.sampled_from([-0.0, 1e308, 5e-324, 1e16])
odd = st.one_of(
    st.binary(max_size=4), st.datetimes(timezones=st.just(UTC)), st.dates(), st.times(), st.timedeltas(), st.uuids(),
    st.decimals(), st.sampled_from(list(Colour)), st.builds(Hidden), st.just(Hidden), st.just(Point),
    st.sets(st.integers(), max_size=2), st.complex_numbers(), st.just(len), st.just(range(3)),
)  # fmt: skip
scalars = st.none() | st.booleans() | whole | floats | texts


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = texts | st.integers(-3, 3) | st.none() | st.booleans() | st.just((1, 2))
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Point, inner, inner),
        inner.map(circular),
        st.tuples(inner, st.integers(1, 400)).map(lambda pair: deep(*pair)),
    )


def circular(value: Any) -> Any:
    holder: dict[str, Any] = {"value": value}
    holder["again"] = [holder]
    return holder


def deep(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


VALUES = st.tuples(
    st.recursive(scalars | odd, containers, max_leaves=12),
    st.none() | st.integers(0, 200),
    st.binary(max_size=40) | st.text(st.sampled_from('[]{}":,0123456789.eE+-ntfalsrue\\ud \x00'), max_size=40),
)


def check(value: tuple[Any, int | None, bytes | str]) -> None:
    given, limit, raw = value
    for refusing in (codec.dump, lambda one: codec.dump_as(one, same, limit=10_000)):
        try:
            text = refusing(given)
        except NotStorable as error:
            assert str(error)
            str(error).encode()
            assert not acceptable(given), "refused without a reason"
            continue
        text.encode()
        assert "\x00" not in text
        back = codec.load(text)
        assert codec.dump(back) == text
        if plain(given):
            assert same_values(back, given)
    try:
        assert limit is None or len(codec.dump(given, limit=limit).encode()) <= limit
    except NotStorable:
        pass
    try:
        codec.probe(given)
    except NotStorable as error:
        assert not acceptable(given), error
    _cleaned(given)
    _read(raw)


def same(value: Any) -> Any:
    return value


def _cleaned(given: Any) -> None:
    if isinstance(given, str):
        clean = codec.clean_text(given, 10)
        assert "\x00" not in clean
        clean.encode()


def _read(raw: bytes | str) -> None:
    """What is no JSON is a ValueError; what is can be written again, if it is within the limits."""
    try:
        back = codec.load(raw)
    except ValueError:
        return
    try:
        again = codec.dump(back)
    except NotStorable:
        return
    assert codec.dump(codec.load(again)) == again


def plain(value: Any) -> bool:
    """Made of what JSON has, and nothing else."""
    kind = type(value)
    if kind in (list, tuple):
        return all(map(plain, value))
    if kind is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    return value is None or kind in (bool, int, float, str)


def acceptable(value: Any, depth: int = 0, above: tuple[int, ...] = ()) -> bool:
    """What is promised to be stored, found another way than flowrun does."""
    kind = type(value)
    if depth > codec.MAX_DEPTH or id(value) in above:
        return False
    inside = (*above, id(value))
    if kind in (list, tuple):
        return all(acceptable(item, depth + 1, inside) for item in value)
    if kind is dict:
        return all(storable_text(key) and acceptable(item, depth + 1, inside) for key, item in value.items())
    if kind is Point:
        return acceptable(value.x, depth + 1, inside) and acceptable(value.y, depth + 1, inside)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return -(2**63) <= value < 2**64
    if kind is str:
        return storable_text(value)
    return value is None or kind in (bool, datetime, date, UUID, Decimal) or value is Colour.RED or (
        kind is time and value.tzinfo is None
    )  # fmt: skip


def storable_text(value: Any) -> bool:
    if not isinstance(value, str) or "\x00" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def same_values(one: Any, two: Any) -> bool:
    if isinstance(two, list | tuple):
        return isinstance(one, list) and len(one) == len(two) and all(map(same_values, one, two))
    if isinstance(two, dict):
        return isinstance(one, dict) and one.keys() == two.keys() and all(same_values(one[k], two[k]) for k in two)
    return type(one) is type(two) and one == two


__all__ = ["VALUES", "check", "timedelta"]
