"""What makes functions handlers: ``@app.handler``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from flowrun.client.handlers import Handler, as_register
from flowrun.core import options as job_options
from flowrun.core.options import JobOptions
from flowrun.errors import ConfigurationError
from flowrun.registry import define

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Concatenate

    from typing_extensions import Unpack

    from flowrun.client.dispatch import Client
    from flowrun.client.handlers import (
        AsyncHandler,
        AsyncJobHandler,
        ProcessRegister,
        Register,
        ThreadHandler,
        ThreadJobHandler,
    )
    from flowrun.context import Job
    from flowrun.registry import Registry

P = ParamSpec("P")
R = TypeVar("R")


class Registering:
    """The part of an app that registers handlers."""

    registry: Registry
    client: Client

    # What an `async def` returns is a value too, so the overloads overlap; the first that fits is the right one.
    @overload
    def handler(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Job, P], Awaitable[R]], /
    ) -> AsyncJobHandler[P, R]: ...
    @overload
    def handler(self, function: Callable[P, Awaitable[R]], /) -> AsyncHandler[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def handler(self, function: Callable[Concatenate[Job, P], R], /) -> ThreadJobHandler[P, R]: ...
    @overload
    def handler(self, function: Callable[P, R], /) -> ThreadHandler[P, R]: ...
    @overload
    def handler(
        self, type: str | None = None, /, *, process: Literal[True], **options: Unpack[JobOptions]
    ) -> ProcessRegister: ...
    @overload
    def handler(
        self, type: str | None = None, /, *, process: Literal[False] = False, **options: Unpack[JobOptions]
    ) -> Register: ...
    def handler(self, function: Any = None, /, *, process: bool = False, **options: Unpack[JobOptions]) -> Any:
        """Register a function as the handler of a type (default: the function's name).

        An ``async def`` runs on the event loop, a plain ``def`` in a thread, or with ``process=True`` in a process of
        its own, which is killed when it is cancelled or its time is over. The options are defaults for its jobs.
        Raises ConfigurationError when the function cannot be a handler or the type is taken.

            @app.handler("charge_payment", queue="billing", attempts=5, timeout=30.0)
            async def charge_payment(order_id: int, token: str) -> Receipt: ...
        """
        if callable(function):
            return self._register(function, None, options, process)
        if function is not None and not isinstance(function, str):
            way = "; register a bound method" if isinstance(function, classmethod) else ""
            raise ConfigurationError(f"@app.handler takes a function or the name of a type, not {function!r}{way}")
        type: str | None = function
        return as_register(lambda decorated: self._register(decorated, type, options, process))

    def _register(
        self, function: Callable[..., Any], type: str | None, options: JobOptions, process: bool
    ) -> Handler[..., Any]:
        name = type or getattr(function, "__name__", "?")
        definition = define(function, type, job_options.check(options, f"handler {name!r}"), process=process)
        self.registry.add(definition)
        return Handler(definition, self.client)
