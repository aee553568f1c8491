"""Handlers as users hold them: callable as the function they wrap, dispatchable as a job."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from flowrun.client.specs import JobSpec
from flowrun.context import Job
from flowrun.registry import Definition

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.client.runs import JobRun

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Handler(Generic[P, R_co]):
    """A registered handler: ``P`` are its own parameters, ``R_co`` what it returns."""

    def __init__(self, definition: Definition, client: Client) -> None:
        functools.update_wrapper(self, definition.function)
        self._definition = definition
        self._client = client

    @property
    def type(self) -> str:
        """The name it is registered by."""
        return self._definition.type

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R_co]:
        """A job of this type with these arguments, to be given options, dispatched, or added to a flow.

        spec = charge_payment.job(order_id=1, token="t").options(priority=1)
        """
        definition = self._definition
        return JobSpec(definition.type, args, kwargs, defaults=definition.options, dispatcher=self._client)

    def item(self) -> JobSpec[R_co]:
        """A job of this type without arguments yet: what ``flow.map`` completes with an item."""
        definition = self._definition
        return JobSpec(definition.type, defaults=definition.options, dispatcher=self._client)

    async def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> JobRun[R_co]:
        """Store a job of this type; it takes the handler's own arguments and nothing else.

        When it returns, the job is committed. Raises InvalidArguments.

            run = await charge_payment.dispatch(order_id=1, token="t")
            receipt = await run.result(timeout=10)
        """
        return await self.job(*args, **kwargs).dispatch()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
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


def as_register(register: Callable[[Callable[..., Any]], Handler[..., Any]]) -> Register:
    """A plain decorator, as type checkers shall see it."""
    return cast(Register, register)
