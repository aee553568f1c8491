"""Attempts, and the ways out of a handler."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowrun import Discard, Job, JobFailed, JobSkipped, Retry, Snooze, backoff

AT_ONCE = backoff.constant(0.0)


@pytest.fixture
def runs() -> list[int]:
    return []


async def test_a_failed_attempt_is_kept_and_tried_again(app, runs) -> None:
    @app.handler(attempts=3, backoff=AT_ONCE)
    async def flaky(job: Job) -> str:
        runs.append(job.attempt)
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")
        return "at last"

    async with app.worker(concurrency=1):
        run = await flaky.dispatch()
        assert await run.result(timeout=10) == "at last"
        status, kept = await run.status(), await run.attempts()
    assert runs == [1, 2, 3]
    assert (status.state, status.attempts, status.error) == ("succeeded", 3, None)
    assert [(one.attempt, one.error_type, one.message) for one in kept] == [
        (1, "ValueError", "attempt 1"),
        (2, "ValueError", "attempt 2"),
    ]
    assert all("raise ValueError" in (one.traceback or "") for one in kept)
    assert all(one.worker and one.started_at and one.started_at <= one.ended_at for one in kept)


async def test_attempts_used_up(app, runs) -> None:
    @app.handler(attempts=2, backoff=AT_ONCE)
    async def bad(secret: str) -> None:
        runs.append(1)
        raise ValueError("no luck")

    async with app.worker(concurrency=1):
        run = await bad.dispatch(secret="hunter2")
        with pytest.raises(JobFailed, match=r"job 'bad' \(.+\) failed after 2 attempt\(s\): ValueError: no luck") as e:
            await run.result(timeout=10)
        status = await run.status()
    failure = e.value
    assert (failure.type, failure.id, failure.error_type) == ("bad", run.id, "ValueError")
    assert (failure.message, failure.attempts) == ("no luck", 2)
    assert 'raise ValueError("no luck")' in (failure.traceback or "")
    assert "hunter2" not in f"{failure} {failure.traceback}"
    assert (status.state, status.error_type, status.error) == ("failed", "ValueError", "no luck")
    assert len(runs) == 2


async def test_the_default_is_three(app, runs) -> None:
    @app.handler(backoff=AT_ONCE)
    async def bad(job: Job) -> None:
        runs.append(job.attempts)
        raise ValueError

    async with app.worker(concurrency=1):
        await (await bad.dispatch()).wait(timeout=10)
    assert runs == [3, 3, 3]


async def test_the_job_says_how_often_not_the_handler(app, runs) -> None:
    @app.handler(attempts=9, backoff=backoff.constant(3600.0))
    async def bad() -> None:
        runs.append(1)
        raise ValueError

    async with app.worker(concurrency=1):
        await (await bad.job().options(attempts=2, backoff=AT_ONCE).dispatch()).wait(timeout=10)
        flow = app.flow("f", attempts=4, backoff=AT_ONCE)
        flow.add(bad.job(), name="of the flow")
        flow.add(bad.job().options(attempts=1), name="of the job")
        status = await (await flow.dispatch()).wait(timeout=10)
    assert (status["of the flow"].attempts, status["of the job"].attempts, len(runs)) == (4, 1, 2 + 4 + 1)


async def test_backoff_delays_by_the_attempts_number(app, until) -> None:
    @app.handler(attempts=5, backoff=lambda attempt: 100.0 * attempt)
    async def bad() -> None:
        raise ValueError

    async with app.worker(concurrency=1):
        run = await bad.dispatch()

        async def scheduled() -> bool:
            return (await run.status()).state == "scheduled"

        await until(scheduled)
        status, kept = await run.status(), await run.attempts()
    assert status.attempts == 1
    assert status.run_at - kept[0].ended_at == pytest.approx(timedelta(seconds=100), abs=timedelta(seconds=5))


async def test_a_short_backoff_is_waited_for(app) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(0.3, jitter=0.0))
    async def flaky(job: Job) -> None:
        if job.attempt == 1:
            raise ValueError

    async with app.worker(concurrency=1):
        run = await flaky.dispatch()
        status, kept = await run.wait(timeout=10), await run.attempts()
    assert status.started_at - kept[0].ended_at >= timedelta(seconds=0.3)


async def test_a_broken_backoff_fails_the_job(app) -> None:
    @app.handler(attempts=5, backoff=lambda attempt: 1 / 0)
    async def bad() -> None:
        raise ValueError

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="ZeroDivisionError"):
            await (await bad.dispatch()).result(timeout=10)


async def test_discard(app, runs) -> None:
    @app.handler(attempts=5, backoff=AT_ONCE)
    async def gone() -> None:
        runs.append(1)
        raise Discard("the order was deleted")

    async with app.worker(concurrency=1):
        run = await gone.dispatch()
        with pytest.raises(JobFailed, match="the order was deleted"):
            await run.result(timeout=10)
        assert len(await run.attempts()) == 1
    assert len(runs) == 1


async def test_retry_counts_as_an_attempt(app, runs) -> None:
    @app.handler(attempts=3, backoff=backoff.constant(3600.0))
    async def busy(job: Job) -> None:
        runs.append(job.attempt)
        raise Retry(0)

    async with app.worker(concurrency=1):
        status = await (await busy.dispatch()).wait(timeout=10)
    assert (runs, status.state, status.attempts) == ([1, 2, 3], "failed", 3)


async def test_retry_after_a_while_and_by_the_backoff(app) -> None:
    @app.handler(attempts=3, backoff=backoff.constant(0.2, jitter=0.0))
    async def busy(job: Job) -> None:
        if job.attempt < 3:
            raise Retry(0.1 if job.attempt == 1 else None)

    async with app.worker(concurrency=1):
        run = await busy.dispatch()
        status, kept = await run.wait(timeout=10), await run.attempts()
    assert kept[1].started_at - kept[0].ended_at >= timedelta(seconds=0.1)
    assert status.started_at - kept[1].ended_at >= timedelta(seconds=0.2)


async def test_snooze_uses_no_attempt(app, runs) -> None:
    @app.handler(attempts=1)
    async def early(job: Job) -> str:
        runs.append(job.attempt)
        if len(runs) < 5:
            raise Snooze(0.001 if len(runs) % 2 else 0)
        return "now"

    async with app.worker(concurrency=1):
        run = await early.dispatch()
        assert await run.result(timeout=10) == "now"
        assert (await run.status()).attempts == 1
        assert await run.attempts() == []
    assert runs == [1] * 5


async def test_a_snooze_of_no_time_does_not_spin(app, runs) -> None:
    @app.handler
    async def never(job: Job) -> None:
        runs.append(job.attempt)
        raise Snooze(0)

    @app.handler
    async def other() -> None: ...

    loop = asyncio.get_running_loop()
    async with app.worker(concurrency=2):
        began = loop.time()
        await never.dispatch()
        while loop.time() - began < 0.5:
            await (await other.dispatch()).result(timeout=10)
        assert 1 <= len(runs) <= 1 + (loop.time() - began) / 0.05


class Busy(OSError):
    pass


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"retry_on": OSError}, Busy, 3),
        ({"retry_on": OSError}, ValueError, 1),
        ({"retry_on": (KeyError, ValueError)}, ValueError, 3),
        ({"give_up_on": OSError}, Busy, 1),
        ({"give_up_on": OSError}, ValueError, 3),
        ({"retry_on": OSError, "give_up_on": Busy}, Busy, 1),
        ({"retry_on": OSError, "give_up_on": Busy}, OSError, 3),
        ({"retry_on": Exception}, KeyboardInterrupt, 1),
    ],
)
@pytest.mark.parametrize("on_the_job", [False, True])
async def test_what_is_retried(app, runs, options, error: type[BaseException], expected: int, on_the_job: bool) -> None:
    @app.handler(attempts=3, backoff=AT_ONCE, **({} if on_the_job else options))
    async def bad() -> None:
        runs.append(1)
        raise error

    async with app.worker(concurrency=1):
        spec = bad.job().options(**options) if on_the_job else bad.job()
        await (await spec.dispatch()).wait(timeout=10)
    assert len(runs) == expected


async def test_a_timeout_cancels_the_attempt(app, runs) -> None:
    cancelled = []

    @app.handler(attempts=2, backoff=AT_ONCE, timeout=0.05)
    async def slow(job: Job) -> str:
        runs.append(job.attempt)
        if job.attempt == 2:
            return "in time"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(job.attempt)
            raise
        return "never"

    async with app.worker(concurrency=1):
        run = await slow.dispatch()
        assert await run.result(timeout=10) == "in time"
        kept = await run.attempts()
    assert cancelled == [1]
    assert kept[0].error_type.endswith("AttemptTimeout")
    assert "longer than 0.05 s" in kept[0].message


async def test_a_handler_that_swallows_its_timeout_has_failed_all_the_same(app) -> None:
    @app.handler(attempts=1, timeout=0.05)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"
        return "never"

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="took longer than"):
            await (await stubborn.dispatch()).result(timeout=10)


async def test_a_handlers_own_timeout_error_is_its_own(app) -> None:
    @app.handler(attempts=1, timeout=30)
    async def own() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed) as failure:
            await (await own.dispatch()).result(timeout=10)
    assert failure.value.error_type == "TimeoutError"


async def test_a_timeout_of_a_thread_settles_the_job_while_the_thread_goes_on(app) -> None:
    release = threading.Event()

    @app.handler(attempts=1, timeout=0.05)
    def slow() -> None:
        release.wait(20)

    @app.handler
    async def quick() -> str:
        return "quick"

    async with app.worker(concurrency=2):
        run = await slow.dispatch()
        with pytest.raises(JobFailed, match="took longer than"):
            await run.result(timeout=10)
        assert await (await quick.dispatch()).result(timeout=10) == "quick"
        release.set()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("threaded", [False, True])
async def test_what_would_end_a_program_fails_only_the_job(app, error: BaseException, threaded: bool) -> None:
    def raises() -> None:
        raise error

    async def raises_too() -> None:
        raise error

    handler = app.handler("bad", attempts=1)(raises if threaded else raises_too)

    @app.handler
    async def fine() -> str:
        return "alive"

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match=type(error).__name__):
            await (await handler.dispatch()).result(timeout=10)
        assert await (await fine.dispatch()).result(timeout=10) == "alive"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def circular() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def long_chain() -> Exception:
    error = ValueError("0")
    for number in range(1, 2000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (long_chain(), "1999"),
        (ValueError("a\x00b"), "a\ufffdb"),
        (ValueError("a\ud800b"), "a?b"),
        (ValueError("\x1b[31mred"), "\x1b[31mred"),
        (Unprintable(), "<unprintable Unprintable>"),
        (circular(), "first"),
        (RecursionError("deep"), "deep"),
        (ExceptionGroup("many", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])]), "many (2 sub-exceptions)"),
        (type("E" * 5000, (Exception,), {})("long name"), "long name"),
    ],
)
async def test_every_error_can_be_stored(app, error: Exception, message: str) -> None:
    @app.handler(attempts=1)
    async def bad() -> None:
        raise error

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch()).result(timeout=10)
    assert failure.value.message == message
    assert len(failure.value.traceback or "") < 20_100


async def test_an_endless_message_is_cut(app) -> None:
    @app.handler(attempts=1)
    async def bad() -> None:
        raise ValueError("x" * 50_000_000)

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch()).result(timeout=20)
    assert len(failure.value.message) < 30_000
    assert "truncated 49980000 characters" in failure.value.message


async def test_deep_recursion_in_a_handler(app) -> None:
    def down(n: int) -> int:
        return down(n + 1) + 1

    @app.handler(attempts=1)
    async def bad() -> None:
        down(0)

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="RecursionError"):
            await (await bad.dispatch()).result(timeout=10)
    assert sys.getrecursionlimit() > 100


class Result(BaseModel):
    price: float = 0.0
    more: Any = None


UNSTORABLE = [
    (float("nan"), "NaN"),
    ({"deep": [1, {"x": float("inf")}]}, "deep"),
    ("a\x00b", "NUL"),
    ({"k\x00": 1}, "NUL"),
    ("\ud800", "surrogate"),
    (object(), "object"),
    ({1: "a"}, "key"),
    (10**30, "64 bits"),
    (lambda: 1, "function"),
    ("x" * 2_000_000, "the limit is 1.0 MiB"),
    (Result(price=float("nan")), "price.*nan"),
    (Result(more={"x": [float("inf")]}), "more.*inf"),
]


@pytest.mark.parametrize(("result", "why"), UNSTORABLE, ids=lambda value: f"{value!a:.12}")
async def test_a_result_that_cannot_be_stored_fails_the_job_at_once(app, step, ran, runs, result, why: str) -> None:
    @app.handler(attempts=5)
    async def bad():
        runs.append(1)
        return result

    flow = app.flow("f")
    node = flow.add(bad.job(), name="bad")
    flow.add(step("after"), after=node, name="after")
    flow.add(step("sorry"), after=node.failed, name="sorry")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        with pytest.raises(JobFailed, match=f"the result cannot be stored.*{why}"):
            await run["bad"].result(timeout=10)
        with pytest.raises(JobSkipped):
            await run["after"].result(timeout=10)
        await run["sorry"].result(timeout=10)
        await run.wait(timeout=10)
    assert (len(runs), ran) == (1, ["sorry"])


@pytest.mark.parametrize("result", [object(), {"price": object()}, Result(more=object())])
async def test_a_result_that_its_annotation_cannot_write(app, result: Any) -> None:
    @app.handler(attempts=5)
    async def bad() -> Result:
        return result

    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="the result cannot be stored") as failure:
            await (await bad.dispatch()).result(timeout=10)
    assert failure.value.attempts == 1


async def test_a_skipped_job_says_why(app, step) -> None:
    flow = app.flow("f")
    flow.add(step("b"), after=flow.add(step("a", fail=True), name="a"), name="b")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        with pytest.raises(JobSkipped, match=r"was skipped: its parent a failed; it was to succeed"):
            await run["b"].result(timeout=10)
        status = await run["b"].status()
    assert (status.cause, status.attempts, status.started_at) == (run["a"].id, 0, None)
