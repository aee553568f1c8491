"""What can be a handler, and what it is given."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading

import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, Job
from flowrun.registry import define


async def test_a_handler_stays_a_function(app) -> None:
    @app.handler("double", attempts=9)
    async def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    @app.handler
    def triple(n: int) -> int:
        return 3 * n

    assert await double(n=2) == 4
    assert triple(3) == 9
    assert (double.type, double.__name__, double.__doc__) == ("double", "double", "Twice as much.")
    assert triple.type == "triple"


async def test_a_plain_function_runs_in_a_thread_and_the_loop_stays_free(app) -> None:
    released, inside = threading.Event(), []

    @app.handler
    def block() -> str:
        inside.append(threading.current_thread() is threading.main_thread())
        assert released.wait(20)  # by a job that can only run if the loop is free
        return "blocked"

    @app.handler
    async def release() -> None:
        released.set()

    async with app.worker(concurrency=2):
        blocked = await block.dispatch()
        await (await release.dispatch()).result(timeout=10)
        assert await blocked.result(timeout=10) == "blocked"
    assert inside == [False]


async def test_as_many_threads_as_consumers(app) -> None:
    together = threading.Barrier(20)

    @app.handler
    def meet() -> None:
        together.wait(20)

    async with app.worker(concurrency=20):
        runs = await app.dispatch_many([meet.job() for _ in range(20)])
        for run in runs:
            await run.result(timeout=20)


async def test_the_running_job(app, caplog) -> None:
    seen: list[Job] = []

    @app.handler("look", queue="q", priority=2, attempts=4)
    async def look(a: int, job: Job, b: int = 2) -> int:
        seen.append(job)
        job.log.info("looking")
        return a + b

    flow = app.flow("f")
    flow.add(look.job(1).options(tags=["x", "y"]), name="here")
    with caplog.at_level(logging.INFO, "flowrun.job"):
        async with app.worker(concurrency=1):
            run = await flow.dispatch()
            assert await run.result(timeout=10) == 3
            assert await (await look.dispatch(b=5, a=5)).result(timeout=10) == 10
    first, second = seen
    assert (first.id, first.type, first.name) == (run["here"].id, "look", "here")
    assert (first.flow_id, first.queue, first.priority) == (run.id, "q", 2)
    assert (first.attempt, first.attempts, first.tags) == (1, 4, ("x", "y"))
    assert (second.flow_id, second.name, second.tags) == (None, None, ())
    record = next(record for record in caplog.records if record.message == "looking")
    assert (record.job_id, record.job_type, record.attempt) == (str(first.id), "look", 1)
    assert "here" not in repr(first)


async def test_by_name_for_a_handler_that_lives_elsewhere(app, dsn) -> None:
    elsewhere = Flowrun(dsn)

    @elsewhere.handler("charge", queue="billing")
    async def charge(order: int, token: str = "none") -> str:
        return f"{order} {token}"

    async with app, elsewhere.worker(concurrency=1):
        run = await app.job("charge", {"order": 1, "token": "t"}, queue="billing").dispatch()
        assert await run.result(timeout=10) == "1 t"
        assert await (await app.job("charge", {"order": 2}).options(queue="billing").dispatch()).result(10) == "2 none"


async def test_what_callable_objects_and_partials_do(app) -> None:
    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return a + b

    async def power(base: int, exponent: int) -> int:
        return base**exponent

    add = app.handler("add")(Adder())
    square = app.handler("square")(functools.partial(power, exponent=2))
    async with app.worker(concurrency=1):
        assert await (await add.dispatch(a=1, b=2)).result(timeout=10) == 3
        assert await (await square.dispatch(base=3)).result(timeout=10) == 9


def _by_position(a: int, b: str = "x", *, c: int = 3) -> None: ...
def _keyword_needed(a: int, *, c: int) -> None: ...
def _all_optional(a: int = 1, b: int = 2) -> None: ...
def _anything(a: int, **rest: int) -> None: ...
def _job_between(a: int, job: Job, b: int) -> None: ...


@pytest.mark.parametrize("function", [_by_position, _keyword_needed, _all_optional, _anything, _job_between])
@pytest.mark.parametrize("args", [(), (1,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("kwargs", [{}, {"a": 7}, {"b": 7}, {"c": 7}, {"b": 7, "c": 8}, {"d": 9}])
def test_arguments_are_bound_as_a_call_would(function, args, kwargs) -> None:
    definition = define(function, "one", {})
    try:
        expected = dict(definition.signature.bind(*args, **kwargs).arguments)
    except TypeError:
        with pytest.raises(InvalidArguments):
            definition.bind(args, kwargs, "job")
    else:
        expected.update(expected.pop("rest", {}))
        assert definition.bind(args, kwargs, "job") == expected


async def test_any_keyword(app) -> None:
    @app.handler
    async def count(n: int, **more: int) -> int:
        return n + sum(more.values())

    async with app.worker(concurrency=1):
        assert await (await count.dispatch(n=1, x=2, y=3)).result(timeout=10) == 6


def test_what_cannot_be_a_handler(app) -> None:
    def generator():
        yield 1

    async def async_generator():
        yield 1

    async def only_positional(a, /): ...

    async def star(*args): ...

    async def two(a: Job, b: Job): ...

    for function, why in [
        (generator, "generator"),
        (async_generator, "generator"),
        (only_positional, "positional-only"),
        (star, r"\*args"),
        (two, "two parameters annotated Job"),
        (type("Some", (), {}), "must be a function"),
        (5, "must be a function"),
    ]:
        with pytest.raises(ConfigurationError, match=why):
            app.handler("x")(function)
    for name in ("", "a\nb", "flowrun.end", "x" * 201, " a"):
        with pytest.raises(ConfigurationError):
            app.handler(name)(lambda: None)


def test_a_lambda_has_no_good_name_but_can_have_one(app) -> None:
    assert app.handler("good")(lambda: None).type == "good"


def test_two_handlers_of_one_name_are_both_named(app) -> None:
    @app.handler("same")
    async def one() -> None: ...

    with pytest.raises(ConfigurationError, match=r"'same': .*test_handlers\.py:\d+ and .*test_handlers\.py:\d+"):

        @app.handler("same")
        async def two() -> None: ...


@pytest.mark.parametrize("options", [{"attempts": 0}, {"queue": ""}, {"retries": 3}, {"timeout": 0}])
def test_options_are_checked_at_registration(app, options) -> None:
    with pytest.raises(ConfigurationError, match="handler 'x'"):
        app.handler("x", **options)(lambda: None)


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, 100_000])
async def test_refused_concurrency(app, concurrency) -> None:
    with pytest.raises(ConfigurationError, match="concurrency must be"):
        async with app.worker(concurrency=concurrency):
            pass


@pytest.mark.parametrize("queues", [[], "default", [""], ["a\n"]])
async def test_refused_queues(app, queues) -> None:
    with pytest.raises(ConfigurationError):
        async with app.worker(queues=queues):
            pass


async def test_a_type_that_nobody_here_knows_is_left_for_others(app, until) -> None:
    @app.handler
    async def known() -> None: ...

    async with app.worker(concurrency=2):
        unknown = await app.job("unknown").dispatch()
        for _ in range(3):
            await (await known.dispatch()).result(timeout=10)
        status = await unknown.status()
    assert (status.state, status.attempts) == ("ready", 0)


async def test_arguments_that_do_not_fit_the_worker_fail_at_once(app, dsn) -> None:
    """Dispatched by a program that does not know the handler."""
    other = Flowrun(dsn)
    runs = []

    @app.handler(attempts=5)
    async def strict(n: int) -> None:
        runs.append(n)

    async with other, app.worker(concurrency=1):
        for arguments in ({}, {"n": "x"}, {"n": 1, "more": 2}, {"m": 1}):
            run = await other.job("strict", arguments).dispatch()
            status = await run.wait(timeout=10)
            assert (status.state, status.attempts, status.error_type) == (
                "failed",
                1,
                "flowrun.errors.InvalidArguments",
            )
            assert "secret" not in status.error
    assert runs == []


async def test_concurrency_is_the_number_of_handlers_at_once(app) -> None:
    now, most = 0, 0

    @app.handler
    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    async with app.worker(concurrency=3):
        for run in await app.dispatch_many([count.job() for _ in range(60)]):
            await run.result(timeout=10)
    assert most == 3
