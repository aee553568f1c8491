"""What the signature of a function says: annotations resolved wherever they can be, and which parameter is the job."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NewType, NoReturn, get_args, get_origin, get_type_hints

from flowrun.context import Job, JobError
from flowrun.errors import ConfigurationError

_UNIONS = (typing.Union, types.UnionType)
_KNOWN: Mapping[str, Any] = {
    **{name: getattr(typing, name) for name in ("Any", "Annotated", "Optional", "Union")},
    "Job": Job,
    "JobError": JobError,
}
"""What people import for type checkers only, and then name in annotations."""
_FRAMES = 12
"""Frames above the registration in which a local name is looked for."""


def function_of(function: Any) -> Any:
    """What is called in the end, as far as annotations go: inside partials, methods and objects with ``__call__``."""
    while isinstance(function, partial | staticmethod):
        function = function.func if isinstance(function, partial) else function.__func__
    if inspect.isroutine(function):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine, as far as can be seen without calling it."""
    inner: Any = function
    while isinstance(inner, partial | staticmethod):
        inner = inner.func if isinstance(inner, partial) else inner.__func__
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def hints_of(function: Callable[..., Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Annotations by parameter, resolved; those that cannot be resolved are left out. ``more``: local names."""
    inner = function_of(function)
    try:
        return get_type_hints(inner, localns=dict(more) if more else None, include_extras=True)
    except Exception:  # noqa: BLE001 - whatever an annotation does when it is evaluated
        # Something only imported for type checkers, or local: one by one, and those out that cannot be resolved.
        found: dict[str, Any] = {}
        for name, hint in annotations_of(function).items():
            probe = _Probe({"__annotations__": {name: hint}, "__module__": inner.__module__})
            names = {**getattr(inspect.unwrap(inner), "__globals__", {}), **(more or {})}
            for local in (names, {**_KNOWN, **names}):
                try:
                    found[name] = get_type_hints(probe, names, local, include_extras=True)[name]
                    break
                except Exception:  # noqa: BLE001, S112
                    continue
        return found


def annotations_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Annotations as they were written."""
    found: Mapping[str, Any] = getattr(function_of(function), "__annotations__", {})
    return found


def local_names(function: Callable[..., Any]) -> dict[str, Any]:
    """Local names of those who register ``function``, where one of its annotations needs them."""
    missing = set(annotations_of(function)) - set(hints_of(function))
    if not missing:
        return {}
    found: dict[str, Any] = {}
    frame: Any = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        if not frame.f_globals.get("__name__", "").startswith("flowrun."):
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    names = {word for name in missing for word in _words(annotations_of(function)[name])}
    return {name: value for name, value in found.items() if name in names}


def wants(hint: Any, kind: type) -> bool:
    """Whether an annotation asks for the running ``kind``: itself, ``| None``, ``Annotated``, an alias of it."""
    while True:
        if hint is kind:
            return True
        origin = get_origin(hint)
        if origin is typing.Annotated:
            hint = get_args(hint)[0]
        elif origin in _UNIONS:
            others = [one for one in get_args(hint) if one is not type(None)]
            if len(others) != 1:
                return False
            hint = others[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return False


def mentions(hint: Any, kind: type) -> bool:
    """Whether ``kind``, or a class made of it, stands anywhere in an annotation."""
    if inspect.isclass(hint) and not get_args(hint):
        return issubclass(hint, kind)
    return any(mentions(one, kind) for one in get_args(hint))


def returned(function: Callable[..., Any], hints: Mapping[str, Any]) -> tuple[Any, bool]:
    """What a function says it returns, and whether it says anything. An awaitable of something is that."""
    if inspect.isclass(function):
        return function, True
    if "return" not in annotations_of(function):
        return Any, False
    hint = hints.get("return", Any)
    if get_origin(hint) in (Awaitable, Coroutine):
        hint = get_args(hint)[-1]
    return (Any, False) if hint in (NoReturn, typing.Never) else (hint, True)


def check_callable(function: Any, name: str) -> None:
    """Raise ConfigurationError for what cannot be a handler, whatever its parameters."""
    if inspect.isclass(function) or not callable(function):
        way = "; register the bound method" if isinstance(function, classmethod) else ""
        raise ConfigurationError(f"handler {name!r} must be a function, not {function!r}{way}")
    called = function_of(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(
            f"handler {name!r} is a generator function; a handler returns its result, it cannot yield"
        )
    if not inspect.isfunction(function):
        return
    outer = function.__qualname__.rpartition(".")[0]
    first = next(iter(inspect.signature(function).parameters), None)
    if outer and not outer.endswith("<locals>") and first in ("self", "cls"):
        raise ConfigurationError(
            f"handler {name!r} is a method of {outer}: there is no {first!r} to call it with; register the bound "
            f'method of an object, app.handler("{name}")({outer.rpartition(".")[2].lower()}.{function.__name__}), '
            "or make it a function or a staticmethod"
        )


def place(function: Callable[..., Any]) -> str:
    """Where it is written."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    return f"{code.co_filename}:{code.co_firstlineno}"


class _Probe:
    """Something with one annotation, for typing.get_type_hints."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)


def _words(annotation: Any) -> list[str]:
    text = annotation if isinstance(annotation, str) else str(annotation)
    return "".join(letter if letter.isidentifier() or letter.isdigit() else " " for letter in text).split()
