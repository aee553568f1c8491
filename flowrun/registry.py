"""Handlers by type name, and what their signatures say."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import Any, Final, NoReturn, Unpack, get_args, get_origin, get_type_hints

from flowrun import codec
from flowrun.context import Job, JobError
from flowrun.core.options import JobOptions, check_name
from flowrun.errors import ConfigurationError, FlowrunError, InvalidArguments, NotStorable, UnknownHandler
from flowrun.importable import Address, address
from flowrun.shapes import Misfit, Shape, first_complaint, prepared
from flowrun.signatures import (
    annotations_of,
    check_callable,
    hints_of,
    is_async,
    local_names,
    mentions,
    place,
    returned,
    wants,
)

__all__ = ["Definition", "Registry", "Returned", "define", "is_async", "load_validation"]

_EXTRA = inspect.Parameter.VAR_KEYWORD
_ANY_NUMBER = inspect.Parameter.VAR_POSITIONAL
_UNSUPPORTED = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only parameters",
    _ANY_NUMBER: "*args",
}


@dataclass(eq=False)
class Definition:
    """A handler as registered: the function, what it takes, how it is run."""

    type: str
    function: Callable[..., Any]
    options: JobOptions
    threaded: bool
    """A plain ``def``: it runs in a thread."""
    job_parameter: str | None
    """The parameter that receives the running job."""
    signature: inspect.Signature
    """Without the job parameter."""
    place: str = field(default="", repr=False)
    error_parameter: str | None = None
    """The parameter that receives the failure because of which the job was dispatched."""
    on_failure: Definition | None = None
    """The handler of what runs when a job of this type has failed."""
    address: Address | None = None
    """Where a process of its own finds it (``process=True``)."""
    of_failure: bool = False
    """It is such a handler: the job it sees is the one that failed."""
    local_names: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Names in its annotations that were local where it was registered."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The arguments by parameter, as given; InvalidArguments if they do not fit the signature."""
        if not args and self.required <= kwargs.keys() <= self.names:
            return dict(kwargs)
        if not kwargs and self._fewest <= len(args) <= len(self._in_order):
            return dict(zip(self._in_order, args, strict=False))
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join(str(parameter) for parameter in self.signature.parameters.values()) or "nothing"
            raise InvalidArguments(f"{where}: {error}; handler {self.type!r} takes {takes}") from None
        arguments = dict(bound.arguments)
        if self._extra is not None:
            arguments.update(arguments.pop(self._extra, {}))
        return arguments

    def some(self, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Some of the arguments by parameter; InvalidArguments if they do not fit the signature."""
        try:
            arguments = dict(self.signature.bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            takes = ", ".join(str(parameter) for parameter in self.signature.parameters.values()) or "nothing"
            raise InvalidArguments(f"{where}: {error}; handler {self.type!r} takes {takes}") from None
        if self._extra is not None:
            arguments.update(arguments.pop(self._extra, {}))
        return arguments

    def takes_as_they_are(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether these are its arguments, each already just what its annotation says, of a type that JSON has."""
        plain = self._plain_types
        for name, value in kwargs.items():
            if type(value) is not plain.get(name):
                return False
        return self.required <= kwargs.keys()

    def is_plain(self, name: str, value: Any) -> bool:
        """Whether the argument is already just what its annotation says, a type that JSON has."""
        return type(value) is self._plain_types.get(name)

    def plain(self, name: str, value: Any, where: str) -> Any:
        """One argument as JSON can carry it, so that an equal one arrives. Raises InvalidArguments naming the place."""
        try:
            return codec.plain_as(value, self._shape(name).plain)
        except Misfit as error:
            raise InvalidArguments(f"{where}, argument {name!r}: {error}{self._way_out(name)}") from None
        except NotStorable as error:
            path = f"{name}.{error.path}".removesuffix(".").replace(".[", "[")
            raise InvalidArguments(f"{where}, argument {path!r}: {error.reason}{self._way_out(name)}") from None

    def _way_out(self, name: str) -> str:
        if name in self.hints or name not in self.names:
            return ""
        written = annotations_of(self.function).get(name)
        if written is None:
            return f"; annotate parameter {name!r} with its type"
        return f"; the annotation {written!r} cannot be resolved: import it where the handler is defined, {self.place}"

    def _shape(self, name: str) -> Shape:
        shape = self._shapes.get(name)
        if shape is None:
            hint = self._more_hints.get(name, Any) if name not in self.names else self.hints.get(name, Any)
            shape = self._shapes[name] = self._made(hint, f"parameter {name!r}")
        return shape

    def _made(self, hint: Any, what: str) -> Shape:
        try:
            return Shape(hint)
        except Exception as error:  # noqa: BLE001 - whatever pydantic says of a user's type
            self._refuse(what, error)

    def _refuse(self, what: str, error: Exception) -> NoReturn:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArguments(
            f"handler {self.type!r}, {what}: its annotation cannot be converted, use types that pydantic knows: {first}"
        ) from None

    @cached_property
    def decode(self) -> Callable[[str], dict[str, Any]]:
        """From stored arguments to arguments converted as annotated. Raises InvalidArguments."""
        from pydantic import ValidationError

        validate = self._arguments.validator.validate_json
        more = self._extra is not None and bool(self._more_hints)

        def convert(text: str) -> dict[str, Any]:
            try:
                converted: dict[str, Any] = validate(text, by_alias=True, by_name=True)
            except ValidationError as error:
                path, problem = first_complaint(error)
                at = f"argument {path!r}: " if path else ""
                raise InvalidArguments(f"job of type {self.type!r}: {at}{problem}") from None
            return self._with_more(converted, text) if more else converted

        return convert

    def decode_value(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The same from arguments whose references were filled in."""
        try:
            text = codec.dump(arguments)
        except NotStorable as error:  # each part was stored; together they are too deep
            raise InvalidArguments(f"job of type {self.type!r}, with its parents' results: {error}") from None
        return self.decode(text)

    def _with_more(self, converted: dict[str, Any], text: str) -> dict[str, Any]:
        """Arguments that ``**more`` takes, too, as annotated."""
        written = codec.load(text)
        for name in converted.keys() - self.names:
            try:
                converted[name] = self._shape(name).back_from(written[name])
            except Misfit as error:
                raise InvalidArguments(f"job of type {self.type!r}: argument {name!r}: {error}") from None
        return converted

    @cached_property
    def returned(self) -> Returned:
        """What it returns, to JSON and back."""
        return Returned(self.function, self.local_names)

    def result(self, text: str) -> Any:
        """A stored result (JSON), converted as the handler's return annotation says."""
        try:
            return self.returned.load(text)
        except Misfit as error:
            raise FlowrunError(
                f"the stored result of a job of type {self.type!r} does not fit what its handler says it returns: "
                f"{error}"
            ) from None

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Annotations by parameter, resolved; those that cannot be resolved are left out."""
        return hints_of(self.function, self.local_names)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return {}

    @cached_property
    def _more_hints(self) -> _Each:
        """Of what ``**more`` takes, by name."""
        hint = self.hints.get(self._extra or "")
        if get_origin(hint) is Unpack:
            return _Each(get_type_hints(get_args(hint)[0], include_extras=True), None)
        return _Each({}, hint)

    @cached_property
    def names(self) -> frozenset[str]:
        """The parameters, the running job's left out."""
        return frozenset(p.name for p in self.signature.parameters.values() if p.kind is not _EXTRA)

    @cached_property
    def required(self) -> frozenset[str]:
        """The parameters without a default."""
        empty = inspect.Parameter.empty
        return frozenset(name for name in self.names if self.signature.parameters[name].default is empty)

    @cached_property
    def _in_order(self) -> tuple[str, ...]:
        """The parameters that can be given by position."""
        by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return tuple(p.name for p in self.signature.parameters.values() if p.kind is by_position)

    @cached_property
    def _fewest(self) -> int:
        """How many arguments by position are enough when there are no others; beyond all, where none are."""
        needed = [self._in_order.index(name) + 1 if name in self._in_order else sys.maxsize for name in self.required]
        return max(needed, default=0)

    @cached_property
    def _plain_types(self) -> dict[str, Any]:
        return {name: hint for name, hint in self.hints.items() if hint in (int, str, bool)}

    @cached_property
    def _extra(self) -> str | None:
        for parameter in self.signature.parameters.values():
            if parameter.kind is _EXTRA:
                return parameter.name
        return None

    @cached_property
    def _arguments(self) -> Any:
        from typing import NotRequired, Required

        from pydantic import ConfigDict, TypeAdapter, with_config
        from typing_extensions import TypedDict

        fields: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is not _EXTRA:
                required = parameter.default is inspect.Parameter.empty
                hint = prepared(self.hints.get(name, Any))
                fields[name] = Required[hint] if required else NotRequired[hint]
        extra = ConfigDict(extra="forbid" if self._extra is None else "allow")
        try:
            return TypeAdapter(with_config(extra)(TypedDict(self.type, fields)))  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - whatever pydantic says of a user's type
            for name in self.names:
                self._shape(name)  # which one it is
            self._refuse("its parameters", error)


class _Each:
    """Annotations of arguments by any name."""

    def __init__(self, known: Mapping[str, Any], rest: Any) -> None:
        self._known = known
        self._rest = rest

    def __bool__(self) -> bool:
        return bool(self._known) or self._rest is not None

    def get(self, name: str, default: Any) -> Any:
        return self._known.get(name, default if self._rest is None else self._rest)


def load_validation() -> None:
    """Load what decodes arguments: the first job would hold up the event loop for it, 50 ms."""

    async def example(number: int = 0) -> None: ...

    define(example, None, {}).decode("{}")


class Returned:
    """What a function says it returns, to JSON and back; where it says nothing, as JSON has it."""

    def __init__(self, function: Callable[..., Any], more: Mapping[str, Any] | None = None) -> None:
        inner = function if inspect.isclass(function) else inspect.unwrap(function)
        hint, said = returned(inner, {} if inspect.isclass(inner) else hints_of(inner, more))
        self._tolerant = hint in _PLAIN_TYPES
        """Other data that JSON has passes as it is: many annotations of such functions are not quite right."""
        self._shape = _shape_or_any(hint) if said else None
        self.exact: frozenset[type] = self._shape.exact if self._shape is not None else frozenset({str, int, bool})

    def dump(self, value: Any, *, limit: int | None = None) -> str:
        """``value`` as JSON. Raises NotStorable where it would come back as another, Misfit where it is another."""
        if value is None:
            return "null"
        if self._shape is None or type(value) in self.exact:
            return codec.dump(value, limit=limit)
        try:
            return codec.dump_as(value, self._shape.plain, limit=limit)
        except Misfit:
            if not self._tolerant:
                raise
        return codec.dump_as(value, Shape(Any).plain, limit=limit)

    def load(self, text: str) -> Any:
        """The same from JSON. Raises Misfit, without the value, where it does not fit."""
        if self._shape is None or text == "null":
            return codec.load(text)
        try:
            return self._shape.back(text)
        except Misfit:
            if self._tolerant:
                return codec.load(text)
            raise


def _shape_or_any(hint: Any) -> Shape:
    """Of a type that pydantic does not know, only what JSON has by itself passes."""
    try:
        return Shape(hint)
    except Exception:  # noqa: BLE001 - whatever pydantic says of a user's type
        return Shape(Any)


_PLAIN_TYPES: Final = (int, float, str, bool, dict, list, NoneType)


def define(function: Callable[..., Any], type: str | None, options: JobOptions, *, process: bool = False) -> Definition:
    """Read a function's signature once. Raises ConfigurationError if it cannot be a handler."""
    name = type if type is not None else getattr(function, "__name__", "")
    check_name("a handler's type", name)
    if name.startswith("flowrun."):
        raise ConfigurationError(f"handler type {name!r}: names that begin with 'flowrun.' are flowrun's own")
    check_callable(function, name)
    threaded = not is_async(function)
    if process and not threaded:
        raise ConfigurationError(f"handler {name!r}: process=True is for a plain def; an async def runs on the loop")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        unknown = f"handler {name!r}: its parameters are not known ({error}); wrap it in a def"
        raise ConfigurationError(unknown) from None
    local = local_names(function)
    job_parameter, error_parameter = _own_parameters(signature, hints_of(function, local), name)
    if process and error_parameter is not None:
        raise ConfigurationError(f"handler {name!r}: with process=True it can take no JobError")
    own = (job_parameter, error_parameter)
    kept = [parameter for parameter in signature.parameters.values() if parameter.name not in own]
    return Definition(
        name,
        function,
        options,
        threaded,
        job_parameter,
        signature.replace(parameters=kept),
        place(function),
        error_parameter,
        address=address(function, f"handler {name!r}") if process else None,
        local_names=local,
    )


def _own_parameters(signature: inspect.Signature, hints: Mapping[str, Any], name: str) -> tuple[str | None, str | None]:
    """The parameters that receive the running job, and the failure because of which it runs."""
    found: dict[type, str] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in _UNSUPPORTED:
            raise ConfigurationError(
                f"handler {name!r} has {_UNSUPPORTED[parameter.kind]}; arguments are passed by name"
                + ("; a decorator says whose they are by functools.wraps" if parameter.kind is _ANY_NUMBER else "")
            )
        hint = hints.get(parameter.name)
        for kind in (Job, JobError):
            if wants(hint, kind) and parameter.kind is not _EXTRA:
                if kind in found:
                    raise ConfigurationError(f"handler {name!r} has two parameters annotated {kind.__name__}")
                found[kind] = parameter.name
            elif mentions(hint, kind):
                raise ConfigurationError(
                    f"handler {name!r}: parameter {parameter.name!r} cannot be a job of another kind; "
                    f"annotate it {kind.__name__}"
                )
    return found.get(Job), found.get(JobError)


class Registry:
    """The handlers of an app, by type."""

    def __init__(self) -> None:
        self._definitions: dict[str, Definition] = {}
        self.middleware: list[Callable[..., Any]] = []
        """What runs around every handler, the outermost first."""

    def add(self, definition: Definition) -> None:
        """Register; ConfigurationError names both places if the type is taken."""
        other = self._definitions.get(definition.type)
        if other is not None:
            raise ConfigurationError(
                f"two handlers of type {definition.type!r}: {other.place} and {definition.place}; "
                'give one another name: @app.handler("name")'
            )
        self._definitions[definition.type] = definition

    def find(self, type: str) -> Definition | None:
        """The handler of ``type``, if this process has it."""
        return self._definitions.get(type)

    def near(self, type: str, *, likeness: float = 0.6) -> list[str]:
        """Registered types that look like ``type``, at most three, the nearest first; ``likeness`` from 0 to 1."""
        return difflib.get_close_matches(type, self._definitions, n=3, cutoff=likeness)

    def get(self, type: str) -> Definition:
        """The handler of ``type``; UnknownHandler names similar ones."""
        definition = self._definitions.get(type)
        if definition is None:
            near = self.near(type)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UnknownHandler(f"no handler of type {type!r} is registered here{hint}")
        return definition

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._definitions.values())

    def __len__(self) -> int:
        return len(self._definitions)
