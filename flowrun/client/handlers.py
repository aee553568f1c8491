"""Handlers as users hold them: callable as the function they wrap, dispatchable as a job."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Never, ParamSpec, Protocol, TypeVar, cast, overload

from flowrun.client.specs import JobSpec
from flowrun.context import Job, JobError
from flowrun.core import options as job_options
from flowrun.core.options import JobOptions
from flowrun.errors import ConfigurationError
from flowrun.registry import Definition, define

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flowrun.client.dispatch import Client
    from flowrun.client.runs import JobRun

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
OnFailure = Callable[[Job, JobError], Any]
"""What runs when a job has failed for good."""


class Handler(Generic[P, R_co]):
    """A registered handler: ``P`` are its own parameters, ``R_co`` what it returns."""

    def __init__(self, definition: Definition, client: Client) -> None:
        functools.update_wrapper(self, definition.function)
        for name in vars(Handler).keys() & vars(self).keys() - {"__module__", "__doc__"}:
            delattr(self, name)  # an attribute of the function's hides nothing of the handler's
        self._definition = definition
        self._client = client

    @property
    def type(self) -> str:
        """The name it is registered by."""
        return self._definition.type

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R_co]:
        """A job of this type with these arguments, to be given options, dispatched, or added to a flow.

        spec = charge_payment.job(order_id=1, token="t").options(priority=1)
        """
        definition = self._definition
        return JobSpec(definition.type, args, kwargs, defaults=definition.options, dispatcher=self._client)

    def item(self) -> JobSpec[R_co]:
        """A job of this type without arguments yet: what ``flow.map`` completes with an item."""
        definition = self._definition
        return JobSpec(definition.type, defaults=definition.options, dispatcher=self._client)

    @overload
    def on_failure(self, function: OnFailure, /) -> Handler[[], Any]: ...
    @overload
    def on_failure(self, /, **options: Unpack[JobOptions]) -> Callable[[OnFailure], Handler[[], Any]]: ...
    def on_failure(self, function: Any = None, /, **options: Unpack[JobOptions]) -> Any:
        """Register what runs when a job of this type has failed for good: it gets the job that failed, and the error.

        It is a job of its own, of type ``<type>.on_failure``, dispatched in the commit that records the failure: it is
        retried like any other, and never lost with the worker. It waits in the handler's own queue unless ``options``
        say otherwise; a job's own ``on_failure=`` takes its place. Cancelled jobs have not failed. Raises
        ConfigurationError.

            @charge_payment.on_failure
            async def sorry(job: Job, error: JobError) -> None:
                await send_email.dispatch(to="ops@shop.example", text=f"{job.id}: {error.message}")
        """
        if callable(function):
            return self._register_callback(function, options)
        return lambda decorated: self._register_callback(decorated, options)

    def _register_callback(self, function: Callable[..., Any], options: JobOptions) -> Handler[[], Any]:
        definition = self._definition
        if definition.on_failure is not None:
            raise ConfigurationError(f"handler {self.type!r} has an on_failure already: {definition.on_failure.place}")
        name = f"{self.type}.on_failure"
        defaults: JobOptions = {"queue": definition.options["queue"]} if "queue" in definition.options else {}
        checked = job_options.merge(job_options.check(options, f"handler {name!r}"), defaults)
        callback = define(function, name, checked)
        if callback.signature.parameters:
            raise ConfigurationError(
                f"handler {name!r} takes {callback.signature}; it can take a parameter annotated Job and one annotated "
                "JobError, and nothing else"
            )
        callback.of_failure = True
        self._client.registry.add(callback)
        definition.on_failure = callback
        return Handler(callback, self._client)

    async def dispatch(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRun[R_co]:
        """Store a job of this type; it takes the handler's own arguments and nothing else.

        When it returns, the job is committed. Raises InvalidArguments.

            run = await charge_payment.dispatch(order_id=1, token="t")
            receipt = await run.result(timeout=10)
        """
        return await self.job(*args, **kwargs).dispatch()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself: a handler stays testable as a function."""
        return self._definition.function(*args, **kwargs)

    def __repr__(self) -> str:
        """The type."""
        return f"<Handler {self.type!r}>"


if TYPE_CHECKING:

    class AsyncHandler(Handler[P, R_co]):
        """A handler made of an ``async def``."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
            """Call the function itself."""
            ...

    class AsyncJobHandler(Handler[P, R_co]):
        """A handler made of an ``async def`` that takes the running job first."""

        def __call__(self, job: Job, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
            """Call the function itself."""
            ...

    class ThreadHandler(Handler[P, R_co]):
        """A handler made of a plain ``def``: it runs in a thread."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
            """Call the function itself."""
            ...

    class ThreadJobHandler(Handler[P, R_co]):
        """A handler made of a plain ``def`` that takes the running job first."""

        def __call__(self, job: Job, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
            """Call the function itself."""
            ...


class Register(Protocol):
    """What ``@app.handler("name", ...)`` returns: a decorator."""

    @overload
    def __call__(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Job, P], Awaitable[R]], /
    ) -> AsyncJobHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> AsyncHandler[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[Concatenate[Job, P], R], /) -> ThreadJobHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> ThreadHandler[P, R]: ...


class ProcessRegister(Protocol):
    """What ``@app.handler("name", process=True)`` returns: a decorator for a plain ``def``."""

    @overload
    def __call__(self, function: Callable[..., Awaitable[Any]], /) -> Never: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Job, P], R], /
    ) -> ThreadJobHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> ThreadHandler[P, R]: ...


def as_register(register: Callable[[Callable[..., Any]], Handler[..., Any]]) -> Register:
    """A plain decorator, as type checkers shall see it."""
    return cast(Register, register)
