"""Every callable that people decorate runs, or is refused when it is registered."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Optional

import pytest

from flowrun import ConfigurationError, Job

if TYPE_CHECKING:
    pass  # a name that is not there when the program runs


def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Service:
    async def method(self, n: int) -> int:
        return n + 1

    @staticmethod
    async def static(n: int) -> int:
        return n + 1

    @classmethod
    async def of_class(cls, n: int) -> int:
        return n + 1

    async def __call__(self, n: int) -> int:
        return n + 1


class Plain:
    job = dispatch = "an attribute of its own"

    def __call__(self, n: int) -> int:
        return n + 1


@traced
async def hidden(n: int) -> int:
    return n + 1


async def odd_names(self: int, cls: int, job: int, type: int, options: int) -> int:
    return self + cls + job + type + options


RUN = [
    hidden, Service().method, Service.static, Service.of_class, Service(), Plain(), functools.partial(hidden),
    functools.partial(functools.partial(Service().method)), lambda n: n + 1, lambda n: hidden(n),
    Service.__dict__["static"],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RUN)))
async def test_it_runs(app, number: int) -> None:
    handler = app.handler("add")(RUN[number])
    async with app.worker(concurrency=1):
        assert await (await handler.dispatch(n=1)).result(timeout=10) == 2


async def test_parameters_of_any_name(app) -> None:
    handler = app.handler(odd_names)
    given = {"self": 1, "cls": 2, "job": 3, "type": 4, "options": 5}
    async with app.worker(concurrency=1):
        assert await (await handler.dispatch(**given)).result(timeout=10) == 15
        assert await (await handler.job(**given).dispatch()).result(timeout=10) == 15
    assert await handler(**given) == 15


async def plainly(job: Job, n: int) -> str: ...
async def maybe(n: int, job: Job | None = None) -> str: ...
async def optionally(job: Optional[Job], n: int) -> str: ...  # noqa: UP045
async def annotated(job: Annotated[Job | None, "the job"], n: int) -> str: ...
async def quoted(job: "Job", n: int) -> str: ...  # noqa: UP037
async def for_checkers(job: "Job", n: "Unknown") -> str: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize("function", [plainly, maybe, optionally, annotated, quoted, for_checkers])
async def test_every_way_to_ask_for_the_running_job(app, function) -> None:
    async def body(job, n):
        return job.type

    body.__annotations__ = function.__annotations__
    handler = app.handler("asks")(body)
    async with app.worker(concurrency=1):
        assert await (await handler.dispatch(n=1)).result(timeout=10) == "asks"


def test_what_cannot_run_is_refused_when_it_is_registered(app) -> None:
    async def two(a: Job, b: Job | None): ...
    async def several(jobs: list[Job]): ...
    async def either(job: Job | int): ...
    async def any_name(**jobs: Job): ...

    class Generating:
        def __call__(self):
            yield 1

    for function, why in [
        (two, "two parameters annotated Job"),
        (several, "parameter 'jobs' cannot be a job of another kind"),
        (either, "parameter 'job' cannot be"),
        (any_name, "parameter 'jobs' cannot be"),
        (Generating(), "generator"),
        (Service.method, "a method of Service"),
        (Service.__dict__["of_class"], "register the bound method"),
    ]:
        with pytest.raises(ConfigurationError, match=why):
            app.handler("x")(function)
    for function in (Service.__dict__["of_class"], 5, object()):
        with pytest.raises(ConfigurationError, match="takes a function or the name of a type"):
            app.handler(function)
    with pytest.raises(ConfigurationError):

        class Shop:
            @app.handler("charge")
            async def charge(self, n: int) -> None: ...
