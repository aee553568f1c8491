"""Handlers by type name, and what their signatures say."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, get_args, get_origin, get_type_hints

from flowrun.annotations import adaptable
from flowrun.context import Job, JobError
from flowrun.core.options import JobOptions, check_name
from flowrun.errors import ConfigurationError, FlowrunError, InvalidArguments, UnknownHandler
from flowrun.importable import Address, address

_EXTRA = inspect.Parameter.VAR_KEYWORD
_UNSUPPORTED = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only parameters",
    inspect.Parameter.VAR_POSITIONAL: "*args",
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

    def validate(self, name: str, value: Any, where: str) -> Any:
        """One argument, converted as its annotation says. Raises InvalidArguments naming it."""
        adapter = self._parameters.get(name)
        if adapter is None:
            return value
        from pydantic import ValidationError

        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise InvalidArguments(f"{where}, argument {name!r}: {_first(error)}") from None

    @cached_property
    def decode(self) -> Callable[[str], dict[str, Any]]:
        """From stored arguments to arguments converted as annotated. Raises InvalidArguments."""
        return self._converting(self._arguments.validator.validate_json)

    @cached_property
    def decode_value(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """The same from arguments whose references were filled in."""
        return self._converting(self._arguments.validator.validate_python)

    def _converting(self, validate: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
        from pydantic import ValidationError

        def convert(arguments: Any) -> dict[str, Any]:
            try:
                converted: dict[str, Any] = validate(arguments)
            except ValidationError as error:
                raise InvalidArguments(f"job of type {self.type!r}: {_first(error, named=True)}") from None
            return converted

        return convert

    def to_plain(self, name: str, value: Any) -> Any:
        """An argument as JSON can carry it."""
        adapter = self._parameters.get(name)
        return value if adapter is None or _plain(value) else adapter.dump_python(value, mode="json", warnings=False)

    def to_plain_result(self, value: Any) -> Any:
        """A result of a type that JSON does not have (a set, a timedelta), as the return annotation writes it."""
        return value if self._result is None else self._result.dump_python(value, mode="json", warnings=False)

    def result(self, value: Any) -> Any:
        """A stored result, converted as the handler's return annotation says."""
        from pydantic import ValidationError

        try:
            return value if self._result is None else self._result.validate_python(value)
        except ValidationError as error:
            raise FlowrunError(
                f"the stored result of a job of type {self.type!r} does not fit what its handler says it returns: "
                f"{_first(error)}"
            ) from None

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Annotations by parameter, resolved; those that cannot be resolved are left out."""
        return _hints(self.function)

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
    def _parameters(self) -> dict[str, Any]:
        from pydantic import TypeAdapter

        hints = {name: adaptable(self.hints[name]) for name in self.signature.parameters if name in self.hints}
        return {name: TypeAdapter(hint) for name, hint in hints.items() if name != self._extra}

    @cached_property
    def _arguments(self) -> Any:
        from typing import NotRequired, Required

        from pydantic import ConfigDict, TypeAdapter, with_config
        from typing_extensions import TypedDict

        fields: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is not _EXTRA:
                required = parameter.default is inspect.Parameter.empty
                hint = adaptable(self.hints.get(name, Any))
                fields[name] = Required[hint] if required else NotRequired[hint]
        shape = TypedDict(self.type, fields)  # type: ignore[misc]
        extra = ConfigDict(extra="forbid" if self._extra is None else "allow")
        return TypeAdapter(with_config(extra)(shape))

    @cached_property
    def _result(self) -> Any:
        from pydantic import TypeAdapter

        hint = self.hints.get("return", Any)
        return None if hint is Any or hint in _PLAIN_TYPES or hint is type(None) else TypeAdapter(adaptable(hint))


def load_validation() -> None:
    """Load what decodes arguments: the first job would hold up the event loop for it, 50 ms."""

    async def example(number: int = 0) -> None: ...

    define(example, None, {}).decode("{}")


class Returned:
    """What a function says it returns, to JSON and back; where it says nothing that helps, as JSON has it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        hint = _hints(inspect.unwrap(function)).get("return", Any)
        if inspect.isclass(function):
            hint = function
        elif get_origin(hint) in (Awaitable, Coroutine):
            hint = get_args(hint)[-1]
        self._adapter = None if hint is Any or hint in _PLAIN_TYPES or hint is type(None) else _adapter(hint)

    def plain(self, value: Any) -> Any:
        """``value`` as JSON can carry it."""
        return value if self._adapter is None else self._adapter.dump_python(value, mode="json", warnings=False)

    def back(self, value: Any) -> Any:
        """The same from JSON. Raises ValueError, without the value, where it does not fit."""
        if self._adapter is None:
            return value
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(_first(error)) from None


def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(adaptable(hint))
    except (PydanticUserError, NameError, TypeError):
        return None


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine, as far as can be seen without calling it."""
    inner = function.func if isinstance(function, partial) else function
    call = getattr(inner, "__call__", None)  # noqa: B004 - the bound method of a callable object
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


_PLAIN_TYPES = (int, float, str, bool, dict, list)


def define(function: Callable[..., Any], type: str | None, options: JobOptions, *, process: bool = False) -> Definition:
    """Read a function's signature once. Raises ConfigurationError if it cannot be a handler."""
    name = type if type is not None else getattr(function, "__name__", "")
    check_name("a handler's type", name)
    if name.startswith("flowrun."):
        raise ConfigurationError(f"handler type {name!r}: names that begin with 'flowrun.' are flowrun's own")
    if inspect.isclass(function) or not callable(function):
        raise ConfigurationError(f"handler {name!r} must be a function, not {function!r}")
    inner = function.func if isinstance(function, partial) else function
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(
            f"handler {name!r} is a generator function; a handler returns its result, it cannot yield"
        )
    threaded = not is_async(function)
    if process and not threaded:
        raise ConfigurationError(f"handler {name!r}: process=True is for a plain def; an async def runs on the loop")
    signature = inspect.signature(function)
    hints = _hints(function)
    job_parameter: str | None = None
    error_parameter: str | None = None
    for parameter in signature.parameters.values():
        if parameter.kind in _UNSUPPORTED:
            raise ConfigurationError(
                f"handler {name!r} has {_UNSUPPORTED[parameter.kind]}; arguments are passed by name"
            )
        if hints.get(parameter.name) is Job:
            if job_parameter is not None:
                raise ConfigurationError(f"handler {name!r} has two parameters annotated Job")
            job_parameter = parameter.name
        if hints.get(parameter.name) is JobError:
            error_parameter = parameter.name
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
        _place(function),
        error_parameter,
        address=address(function, f"handler {name!r}") if process else None,
    )


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


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    inner: Any = function.func if isinstance(function, partial) else function
    if not inspect.isroutine(inner):
        inner = inner.__call__
    try:
        return get_type_hints(inner, include_extras=True)
    except (NameError, TypeError):
        # Something only imported for type checkers: resolve one by one, leave out what cannot be.
        found: dict[str, Any] = {}
        for name, hint in getattr(inner, "__annotations__", {}).items():
            try:
                probe = {"__annotations__": {name: hint}, "__module__": inner.__module__}
                found[name] = get_type_hints(_Probe(probe), getattr(inner, "__globals__", {}), include_extras=True)[
                    name
                ]
            except (NameError, TypeError):
                continue
        return found


class _Probe:
    """Something with one annotation, for typing.get_type_hints."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)


def _plain(value: Any) -> bool:
    kind = type(value)
    return kind is str or kind is int or kind is float or kind is bool or value is None


def _first(error: Any, *, named: bool = False) -> str:
    """The first complaint of a pydantic error, without the value: it may be secret."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"])
    if named and path:
        return f"argument {path!r}: {message}"
    return f"at {path!r}: {message}" if path else message


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    return f"{code.co_filename}:{code.co_firstlineno}"
