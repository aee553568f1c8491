"""Annotations as pydantic can take them."""

from __future__ import annotations

import sys
import typing
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["adaptable"]


def adaptable(hint: Any) -> Any:
    """``hint``, with ``typing.TypedDict`` made new as ``typing_extensions.TypedDict`` where pydantic asks for that.

    Before Python 3.12 a ``typing.TypedDict`` does not keep what pydantic has to know of it; its users need not know.
    """
    return hint if sys.version_info >= (3, 12) else _made_new(hint, {})


def _made_new(hint: Any, made: dict[Any, Any]) -> Any:
    if is_typeddict(hint) and type(hint) is getattr(typing, "_TypedDictMeta", None):
        if hint not in made:
            made[hint] = Any  # of itself, in a recursive one
            made[hint] = _typed_dict(hint, made)
        return made[hint]
    arguments = get_args(hint)
    if not arguments or get_origin(hint) in (typing.Literal, typing.Annotated):
        return hint
    changed = tuple(_made_new(argument, made) for argument in arguments)
    if changed == arguments:
        return hint
    if hasattr(hint, "copy_with"):
        return hint.copy_with(changed)
    origin: Any = get_origin(hint)
    if getattr(origin, "__module__", None) == "types":  # X | Y
        return typing.Union[changed]  # noqa: UP007 - made at run time
    generic: Any = origin
    return generic[changed]


def _typed_dict(hint: Any, made: dict[Any, Any]) -> Any:
    from typing_extensions import TypedDict

    fields: dict[str, Any] = {}
    for name, field in get_type_hints(hint, include_extras=True).items():
        # Under `from __future__ import annotations` the class itself has not seen NotRequired[...].
        said = get_origin(field)
        inner = _made_new(get_args(field)[0] if said in (Required, NotRequired) else field, made)
        required = said is Required or (said is not NotRequired and name in hint.__required_keys__)
        fields[name] = Required[inner] if required else NotRequired[inner]
    make: Any = TypedDict
    return make(hint.__name__, fields)
