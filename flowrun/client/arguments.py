"""Arguments of jobs that are stored already, and of those that a map makes: checked where their handler is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowrun import codec
from flowrun.core.references import contains
from flowrun.errors import InvalidArguments
from flowrun.registry import Definition


def edited(
    definition: Definition | None, type: str, args: Mapping[str, Any], drop: Sequence[str], limit: int
) -> tuple[str, tuple[str, ...]]:
    """Arguments to replace, as stored (JSON), and the names of those to take out. Raises InvalidArguments."""
    where = f"job {type!r}"
    out = _dropped(drop, args, where)
    given = dict(args)
    if definition is not None:
        given = definition.some((), args, where)
        if needed := sorted(definition.required.intersection(out)):
            raise InvalidArguments(f"{where}: handler {type!r} needs argument {needed[0]!r}: it cannot be dropped")
        for name, value in given.items():
            if not definition.is_plain(name, value):
                given[name] = definition.plain(name, value, where)
    try:
        return codec.dump(given, limit=limit), out
    except codec.NotStorable as error:
        at = f", argument {error.path!r}" if error.path else ", arguments"
        raise InvalidArguments(f"{where}{at}: {error.reason}") from None


def plain_part(definition: Definition, name: str, value: Any, where: str) -> Any:
    """An argument as JSON can carry it, but for one with references in it, which are still to be taken out."""
    return value if definition.is_plain(name, value) or contains(value) else definition.plain(name, value, where)


def _dropped(drop: Sequence[str], args: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of arguments to take out. Raises InvalidArguments."""
    if isinstance(drop, str) or not all(isinstance(name, str) for name in drop):
        raise InvalidArguments(f"{where}: drop= is a list of names of arguments")
    if both := sorted(args.keys() & set(drop)):
        raise InvalidArguments(f"{where}: argument {both[0]!r} is to be replaced and dropped; it can only be one")
    return tuple(drop)
