"""References to parents' results inside a job's arguments: found, taken out, and put back when the job runs.

``{"receipt": pay.result, "lines": [a.result["id"]]}`` becomes the same value with ``None`` in the places, plus a list
of *bindings*: where in the arguments, which parent, which path into its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, TypeAlias, cast

from flowrun.errors import InvalidArguments, InvalidFlow

MAX_DEPTH = 200
"""Levels of lists and dicts around a reference."""

Key: TypeAlias = "str | int"
Binding: TypeAlias = "tuple[list[Key], int, list[Key]]"
"""Path in the arguments, number of the source, path in its result."""


class Named(Protocol):
    """A node, as far as a reference to its result is concerned."""

    name: str


class Reference:
    """A parent's result, or a part of it, standing where the value will be: ``pay.result["id"]``.

    An item or an attribute of a reference is a reference again.
    """

    __slots__ = ("_flowrun_node", "_flowrun_path")

    def __init__(self, node: Named, path: tuple[str | int, ...] = ()) -> None:
        self._flowrun_node = node
        self._flowrun_path = path

    def __getitem__(self, key: str | int) -> Reference:
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise InvalidFlow(f"{self!r}[...] takes a text or a whole number, not {type(key).__name__}")
        return Reference(self._flowrun_node, (*self._flowrun_path, key))

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise InvalidFlow(
            f"{self!r} is known only when the flow runs: it is no value yet, and no text or number can be made of it "
            f"while the flow is written; pass {self!r} itself as an argument, and do it in the handler"
        )

    __str__ = __format__ = __bytes__ = __int__ = __float__ = __complex__ = __index__ = _refuse
    __bool__ = __iter__ = __len__ = __contains__ = __reversed__ = __next__ = __hash__ = __call__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = __rmatmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __pow__ = __rpow__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _refuse
    __neg__ = __pos__ = __abs__ = __invert__ = __round__ = __trunc__ = __floor__ = __ceil__ = _refuse
    __setitem__ = __delitem__ = _refuse

    def __repr__(self) -> str:
        """As it was written."""
        return f"{self._flowrun_node.name}.result" + "".join(f"[{key!r}]" for key in self._flowrun_path)


def reference_parts(reference: Reference) -> tuple[Named, tuple[str | int, ...]]:
    """The node a reference points at, and the path into its result."""
    return reference._flowrun_node, reference._flowrun_path


def references(value: Any) -> list[tuple[Named, tuple[Key, ...]]]:
    """Every reference inside ``value``, at any depth of lists, tuples and dicts."""
    found: list[tuple[Named, tuple[Key, ...]]] = []
    stack = [value]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, Reference):
            found.append(reference_parts(item))
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:  # seen: circular, or in two places
            seen.add(id(item))
            stack.extend(reversed(item.values() if isinstance(item, dict) else item))
    return found


def contains(value: Any) -> bool:
    """Whether ``value`` has a reference in it."""
    kind = type(value)
    if kind is str or kind is int or kind is float or value is None:
        return False
    return bool(references(value))


def take_out(value: Any, path: list[Key], found: list[tuple[list[Key], Named, tuple[Key, ...]]]) -> Any:
    """``value`` with ``None`` for every reference, which is added to ``found`` with its path."""
    if len(path) > MAX_DEPTH:
        raise InvalidArguments(f"argument {path[0]!r}: nested deeper than {MAX_DEPTH} levels, or circular")
    if isinstance(value, Reference):
        node, into = reference_parts(value)
        found.append((path, node, into))
        return None
    if isinstance(value, dict):
        return {key: take_out(item, [*path, key], found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [take_out(item, [*path, number], found) for number, item in enumerate(value)]
    return value


class Unresolved(Exception):
    """A path that the parent's result does not have."""


def put_back(arguments: dict[str, Any], bindings: Sequence[Any], results: Sequence[Any]) -> None:
    """Fill the parents' ``results`` into ``arguments``, in place.

    A parent without a result (it did not succeed) gives ``None``, whatever the path. Raises Unresolved when a result
    has no such item.
    """
    for where, source, into in bindings:
        value = results[source]
        for depth, key in enumerate(into):
            if value is None and depth == 0:
                break
            try:
                value = cast(Any, value)[key]
            except (KeyError, IndexError, TypeError):
                path = "".join(f"[{part!r}]" for part in into)
                raise Unresolved(f"argument {where[0]!r}: the parent's result has no {path}") from None
        target: Any = arguments
        for key in where[:-1]:
            target = target[key]
        target[where[-1]] = value
