"""Values by their annotations, to JSON and back: what comes back is equal, of the same types, or it is refused.

A value is converted as its annotation says, written as JSON, read again by the same annotation and compared. What JSON
gives back by nature (texts, whole numbers, truth values) is not looked at.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time
from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_origin

from flowrun.annotations import adaptable
from flowrun.errors import NotStorable

__all__ = ["Misfit", "Shape", "difference", "first_complaint", "prepared", "not_stored", "shape_of"]

_ASIS: Final = frozenset({str, int, bool, NoneType})
"""Types that JSON gives back as they went in."""
_WAYS: Final[tuple[dict[str, bool], ...]] = ({}, {"round_trip": True}, {"round_trip": True, "by_alias": True})
"""How a value may be written: by the names of fields, as references name them; without what is computed; by alias."""
_JSON: Final = (str, int, float, bool, list, dict)
_MISSING: Final = object()
_of_classes: dict[type, Shape] = {}


class Misfit(ValueError):
    """A value is not what its annotation says. The message never holds the value: it may be secret."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"at {path!r}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class Difference(NamedTuple):
    """Where a value came back as another."""

    path: str
    given: Any
    back: Any
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        given, back = type(self.given).__qualname__, type(self.back).__qualname__
        if self.back is _MISSING:
            return "would be lost on the way through JSON"
        if given == back:
            return f"a {given} that would arrive with another value: JSON does not keep all of it"
        return f"a {given}, which would arrive as a {back}"


class Shape:
    """What one annotation says. Making one imports pydantic; raises what pydantic does of a type it does not know."""

    def __init__(self, hint: Any, *, loose: bool = False) -> None:
        from pydantic import TypeAdapter

        self._adapter: Any = TypeAdapter(prepared(hint))
        self._loose = loose
        """Where JSON has no such type, its text will do: whoever reads it knows what it is."""
        self.exact: frozenset[type] = _exact(hint)
        """Types whose values need no look: the annotation says them, and JSON gives them back."""

    def plain(self, value: Any) -> Any:
        """``value`` as data that JSON has, from which ``back`` makes an equal one.

        Raises Misfit where it is not what the annotation says, and NotStorable, naming the place, where another would
        come back. NaN, circles and depth are looked for before (``codec.probe``).
        """
        if type(value) in self.exact:
            return value
        return self._written(self.checked(value))

    def checked(self, value: Any) -> Any:
        """``value``, converted as the annotation says. Raises Misfit."""
        return self._converted(self._adapter.validate_python, value)

    def back(self, text: str | bytes) -> Any:
        """From JSON. Raises Misfit where it is not what the annotation says."""
        return self._converted(self._adapter.validate_json, text)

    def back_from(self, plain: Any) -> Any:
        """The same from data that was read from JSON already."""
        from pydantic_core import to_json

        return plain if type(plain) in self.exact else self.back(to_json(plain, inf_nan_mode="constants"))

    def _converted(self, convert: Callable[..., Any], value: Any) -> Any:
        from pydantic import ValidationError

        try:
            return convert(value, by_alias=True, by_name=True)
        except ValidationError as error:
            raise Misfit(*first_complaint(error)) from None

    def _written(self, value: Any) -> Any:
        from pydantic_core import to_json

        refused: NotStorable | None = None
        for way in _WAYS:
            try:
                plain = self._adapter.dump_python(value, mode="json", warnings=False, **{"by_alias": False, **way})
                back = self.back(to_json(plain, inf_nan_mode="constants"))
            except Misfit as error:
                reason = f"could not be read again by its annotation: {error.reason}"
                if error.path.endswith("[key]") and isinstance(value, dict):
                    refused = refused or NotStorable("", _keys(value))
                refused = refused or NotStorable(error.path, reason)
            except (ValueError, TypeError, RecursionError, AttributeError) as error:
                refused = refused or NotStorable("", _said(error), foreign=True)
            else:
                found = difference(value, back, loose=self._loose)
                if found is None:
                    return plain
                refused = refused or NotStorable(found.path, str(found))
        raise refused or NotStorable("", "cannot be written as JSON")


def shape_of(kind: type) -> Shape:
    """Of values whose own type is all that is known of them. Raises TypeError where pydantic does not know it."""
    from pydantic.errors import PydanticUserError

    if (known := _of_classes.get(kind)) is not None:
        return known
    if len(_of_classes) >= 1000:
        _of_classes.clear()
    try:
        shape = Shape(kind, loose=True)
    except (PydanticUserError, NameError) as error:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__}: {error}") from None
    _of_classes[kind] = shape
    return shape


def not_stored(error: NotStorable | Misfit) -> str:
    """Why a result is not stored."""
    if isinstance(error, Misfit):
        return f"the result cannot be stored: it does not fit what its handler says it returns: {error}"
    at = f" at {error.path!r}" if error.path else ""
    return f"the result cannot be stored{at}: {error.reason}"


def first_complaint(error: Any) -> tuple[str, str]:
    """Place and text of the first complaint of a pydantic error, without the value: it may be secret."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return ".".join(str(part) for part in problem["loc"]), str(problem["msg"])


def difference(given: Any, back: Any, path: str = "", *, loose: bool = False) -> Difference | None:
    """The first place where ``back`` is not equal to ``given``, or of another type; None if there is none.

    A tuple comes back as a list where the annotation does not say that it is one (``Any``, ``Sequence``).

    ``loose``: where JSON has no such type, what JSON has in its place will do.
    """
    kind = type(given)
    if kind is tuple and type(back) is list:  # where the annotation does not say tuple, JSON has lists
        kind, given = list, list(given)
    if kind is not type(back):
        in_json = loose and type(back) in _JSON and kind not in (int, float, str, bool)
        return None if in_json else Difference(path, given, back)
    if kind in _ASIS:
        return None if given == back else Difference(path, given, back)
    if isinstance(given, dict) and isinstance(back, dict):
        return _of_dicts(given, back, path, loose)
    if isinstance(given, list | tuple | deque):
        if len(given) != len(back):
            return Difference(path, given, back)
        inside: Iterable[tuple[str, Any, Any]] = (
            (f"[{number}]", *pair) for number, pair in enumerate(zip(given, back, strict=True))
        )
    elif isinstance(given, set | frozenset):
        theirs = {item: item for item in back}
        inside = (("", item, theirs.get(item, _MISSING)) for item in given)
        if len(given) != len(back):
            return Difference(path, given, back)
    elif (fields := _fields(given)) is not None:
        inside = ((f".{name}", value, _fields(back, name)) for name, value in fields.items())
    else:
        return None if _equal(given, back) else Difference(path, given, back)
    for where, one, other in inside:
        found = difference(one, other, (path + where).removeprefix("."), loose=loose)
        if found is not None:
            return found
    return None


def _of_dicts(given: dict[Any, Any], back: dict[Any, Any], path: str, loose: bool) -> Difference | None:
    if len(given) != len(back):
        return Difference(path, given, back, f"keys that would become one: {_keys(given)}")
    if isinstance(given, OrderedDict) and not _keeps_order(given):
        return Difference(path, given, back, "PostgreSQL's JSON keeps no order of keys; pass a list of pairs")
    if getattr(given, "default_factory", None) is not getattr(back, "default_factory", None):
        return Difference(path, given, back)
    theirs = {key: key for key in back}
    for key, value in given.items():
        other = theirs.get(key, _MISSING)
        where = f"{path}.{str(key)[:60]}".removeprefix(".")
        found = difference(key, other, path)
        found = found and Difference(path, key, other, _keys(given))
        found = found or difference(value, back[other], where, loose=loose)
        if found is not None:
            return found
    return None


def _keys(given: Mapping[Any, Any]) -> str:
    kinds = ", ".join(sorted({type(key).__qualname__ for key in given}))
    return f"a key of type {kinds}; JSON keys are text, so annotate what they are"


def _keeps_order(given: Mapping[Any, Any]) -> bool:
    """PostgreSQL's jsonb orders keys by length, then by bytes."""
    keys = [str(key).encode() for key in given]
    return keys == sorted(keys, key=lambda key: (len(key), key))


def _fields(item: Any, name: str | None = None) -> Any:
    """What a model or a dataclass holds, private attributes of models included; None for anything else.

    With ``name`` just that one, or that it is missing.
    """
    if hasattr(item, "__pydantic_fields__") and hasattr(item, "__pydantic_private__"):
        own = {key: value for key, value in vars(item).items() if key in type(item).__pydantic_fields__}
        held = {**own, **(item.__pydantic_extra__ or {}), **(item.__pydantic_private__ or {})}
    elif hasattr(item, "__dataclass_fields__"):
        held = {key: getattr(item, key, _MISSING) for key in item.__dataclass_fields__}
        held = {key: value for key, value in held.items() if value is not _MISSING}
    else:
        return None
    return held if name is None else held.get(name, _MISSING)


def _equal(given: Any, back: Any) -> bool:
    if isinstance(given, float) and given != given:
        return bool(back != back)
    try:
        if bool(given == back):
            return True
        if isinstance(given, datetime | time):  # two zones at a change of clocks are never equal to Python
            moments = given.replace(tzinfo=None, fold=0), back.replace(tzinfo=None, fold=0)
            return bool(moments[0] == moments[1]) and given.utcoffset() == back.utcoffset()
    except Exception:  # noqa: BLE001 - a user's own __eq__
        return False
    return False


def _exact(hint: Any) -> frozenset[type]:
    if hint in (str, int, bool):
        return frozenset({hint})
    if hint is None or hint is NoneType:
        return frozenset({NoneType})
    inside = get_args(hint)
    if type(None) in inside and len(inside) == 2 and get_origin(hint) is not dict:
        other = next((one for one in inside if one is not NoneType), None)
        if _is_union(hint) and other in (str, int, bool):
            return frozenset({NoneType, other})
    return frozenset()


def _is_union(hint: Any) -> bool:
    import types
    import typing

    return get_origin(hint) in (typing.Union, types.UnionType)


def prepared(hint: Any) -> Any:
    """An annotation as pydantic can take it. Something to iterate over is a list: JSON has nothing that is gone through
    once only."""
    inside = get_args(hint)
    if get_origin(hint) is Iterable and len(inside) == 1:
        return list[inside[0]]  # type: ignore[valid-type]
    return list[Any] if hint is Iterable else adaptable(hint)


def _said(error: BaseException) -> str:
    """What went wrong in writing: pydantic's own words, which name types."""
    text = str(error).removeprefix("Error serializing to JSON: ").split("\n")[0]
    if "ircular" in text or "recursion" in text.lower():
        return "circular reference"
    return text[:200]
