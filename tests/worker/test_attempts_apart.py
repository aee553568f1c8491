"""An attempt harms only itself: its task and its context end with it, and whatever it raises or cancels fails it."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import inspect
from typing import Any

import anyio
import pytest

from flowrun import CallNext, Flowrun, Job, JobFailed, backoff
from flowrun.worker import consumer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "LOOK", 0.05)


def own() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancels_itself() -> None:
    own().cancel()
    await asyncio.sleep(0)


async def cancels_itself_by_a_timer() -> None:
    asyncio.get_running_loop().call_later(0.01, own().cancel)
    await asyncio.sleep(30)


async def forgets_a_timeout() -> None:
    await asyncio.timeout(0.01).__aenter__()
    await asyncio.sleep(30)


async def forgets_a_scope() -> None:
    anyio.CancelScope(deadline=anyio.current_time() + 0.01).__enter__()
    await asyncio.sleep(30)


async def lets_a_stranger_cancel_it() -> None:
    asyncio.get_running_loop().call_soon(own().cancel, context=contextvars.Context())
    await asyncio.sleep(30)


async def raises_a_cancellation() -> None:
    raise asyncio.CancelledError


CANCELLING = [
    cancels_itself, cancels_itself_by_a_timer, forgets_a_timeout, forgets_a_scope, lets_a_stranger_cancel_it,
    raises_a_cancellation,
]  # fmt: skip


@pytest.mark.parametrize("timeout", [None, 20.0], ids=["untimed", "timed"])
@pytest.mark.parametrize("how", CANCELLING, ids=lambda how: how.__name__)
async def test_an_attempt_that_cancels_itself_fails_and_the_next_job_runs(
    app: Flowrun, how: Any, timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    @app.handler(attempts=1, timeout=timeout)
    async def bad() -> None:
        await how()

    @app.handler
    async def fine() -> int:
        await asyncio.sleep(0.02)
        return 1

    async with app.worker(concurrency=1):
        run = await bad.dispatch()
        with pytest.raises(JobFailed):
            await run.result(timeout=20)
        (attempt,) = await run.attempts()
        # Who leaves a scope open inside the one of its attempt is told so by anyio.
        nested = how is forgets_a_scope and timeout is not None
        assert attempt.error_type == ("RuntimeError" if nested else "asyncio.exceptions.CancelledError")
        assert attempt.message
        assert await (await fine.dispatch()).result(timeout=20) == 1
    assert f"job {run.id} (bad) failed on attempt 1" in caplog.text


@pytest.mark.parametrize("timeout", [None, 20.0], ids=["untimed", "timed"])
async def test_what_an_attempt_leaves_to_cancel_its_task_meets_no_other_attempt(
    app: Flowrun, timeout: float | None
) -> None:
    """A timer, a timeout, an open scope, cancellations that were swallowed and not taken back, too many taken back."""

    @app.handler(attempts=1, timeout=timeout)
    async def leaves() -> int:
        task = own()
        asyncio.get_running_loop().call_later(0.05, task.cancel)
        await asyncio.timeout(0.05).__aenter__()
        if timeout is None:
            anyio.CancelScope(deadline=anyio.current_time() + 0.05).__enter__()
        for _ in range(3):
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                pass
        for _ in range(2):
            task.uncancel()
        task.cancel()
        return 1

    @app.handler(attempts=1, timeout=timeout)
    async def later() -> int:
        assert own().cancelling() == 0
        await asyncio.sleep(0.15)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return 2

    @app.handler(attempts=1, timeout=0.1)
    async def too_long() -> None:
        own().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(30)

    async with app.worker(concurrency=1):
        runs = [await leaves.dispatch(), await later.dispatch()]
        assert [await run.result(timeout=20) for run in runs] == [1, 2]
        with pytest.raises(JobFailed, match="took longer than 0.1 s"):
            await (await too_long.dispatch()).result(timeout=20)
        assert await (await later.dispatch()).result(timeout=20) == 2


async def test_a_job_is_cancelled_where_a_cancellation_was_swallowed_before(app: Flowrun) -> None:
    begun = asyncio.Event()

    @app.handler
    async def swallows() -> None:
        own().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass

    @app.handler
    async def waits() -> None:
        begun.set()
        await asyncio.sleep(30)

    @app.handler
    async def both() -> None:
        await swallows()
        begun.set()
        await asyncio.sleep(30)

    async with app.worker(concurrency=1):
        await (await swallows.dispatch()).result(timeout=20)
        for handler in (waits, both):
            begun.clear()
            run = await handler.dispatch()
            await begun.wait()
            await run.cancel()
            assert (await run.wait(timeout=20)).state == "cancelled"
        await (await swallows.dispatch()).result(timeout=20)


class SaysExit(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__

    @property
    def detail(self) -> str:
        raise KeyboardInterrupt

    def __reduce__(self) -> Any:
        raise SystemExit(3)

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise SystemExit(3)

    @property
    def __notes__(self) -> Any:
        raise asyncio.CancelledError

    @property
    def __class__(self) -> Any:
        raise SystemExit(3)


class Text(str):
    def __getitem__(self, _: Any) -> str:
        raise SystemExit(3)

    __len__ = replace = encode = translate = isascii = __getitem__  # type: ignore[assignment]


class SaysText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class OddKind(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__module__", "__name__"):
            raise SystemExit(3)
        return super().__getattribute__(name)


class OfAnOddKind(Exception, metaclass=OddKind):
    pass


# Made when they are raised: what looks at all objects of the process must not meet them.
RAISED = [
    lambda: GeneratorExit("g"),
    lambda: KeyboardInterrupt("k"),
    lambda: SystemExit(0),
    lambda: StopIteration(1),
    lambda: StopAsyncIteration(),
    lambda: BaseException("b"),
    lambda: BaseExceptionGroup("both", [SystemExit(1), ValueError("v")]),
    SaysExit,
    SaysText,
    OfAnOddKind,
    lambda: asyncio.CancelledError("c"),
    RecursionError,
    lambda: ValueError("lone \ud800"),
]


def raised(number: int) -> BaseException:
    return RAISED[number]()


@pytest.mark.parametrize("kind", ["async", "thread", "timed", "middleware"])
async def test_whatever_an_attempt_raises_fails_it_and_nothing_else(app: Flowrun, kind: str) -> None:
    around = kind == "middleware"

    async def bad(number: int) -> None:
        if not around:
            raise raised(number)

    def bad_in_thread(number: int) -> None:
        raise raised(number)

    if around:

        @app.middleware
        async def raising(job: Job, call_next: CallNext) -> Any:
            value = await call_next(job)
            if job.type == "bad":
                raise raised(int(job.tags[0]))
            return value

    function = bad_in_thread if kind == "thread" else bad
    handler = app.handler("bad", attempts=2, backoff=[0.0], timeout=30.0 if kind == "timed" else None)(function)

    @app.handler
    async def fine() -> int:
        return 1

    async with app.worker(concurrency=1):
        runs = [await handler.job(number).options(tags=[str(number)]).dispatch() for number in range(len(RAISED))]
        for number, run in enumerate(runs):
            status = await run.wait(timeout=30)
            assert (status.state, status.attempt) == ("failed", 2), number
            assert len(await run.attempts()) == 2
        assert await (await fine.dispatch()).result(timeout=20) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, SaysExit])
async def test_what_an_app_adds_may_raise_anything(dsn: str, kind: type[BaseException], until) -> None:
    """Backoff, redact, hooks: the attempt fails, the worker goes on."""

    def broken(*_: Any) -> Any:
        raise kind

    app = Flowrun(dsn, redact=broken)
    told: list[str] = []

    @app.handler(attempts=3, backoff=broken)
    async def bad_backoff() -> None:
        raise ValueError("secret")

    @app.handler(attempts=1)
    async def bad() -> None:
        raise ValueError("secret")

    @app.handler
    async def fine() -> int:
        return 1

    @bad.on_failure
    async def sorry() -> None:
        raise kind

    @app.on("attempt_failed")
    async def hook(job: Job) -> None:
        told.append(job.type)
        raise kind

    @app.on("job_started")
    def hook_in_thread() -> None:
        raise kind

    async with app.worker(concurrency=1):
        for handler in (bad_backoff, bad):
            with pytest.raises(JobFailed, match="not kept: redact raised"):
                await (await handler.dispatch()).result(timeout=20)
        assert await (await fine.dispatch()).result(timeout=20) == 1
        await until(lambda: {"bad", "bad_backoff"} <= set(told))


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody's")
program: contextvars.ContextVar[str] = contextvars.ContextVar("program", default="unset")


@pytest.mark.parametrize("kind", ["async", "timed", "thread", "middleware"])
async def test_each_attempt_has_a_context_and_a_task_of_its_own(app: Flowrun, kind: str) -> None:
    program.set("the program's")
    seen: list[tuple[str, str, int]] = []
    hooks: list[str] = []
    tasks: list[Any] = []
    aside: set[Any] = set()

    def look() -> None:
        seen.append((tenant.get(), program.get(), decimal.getcontext().prec))
        if kind != "thread":
            tasks.append(own())
        tenant.set("somebody's")
        decimal.getcontext().prec = 3

    if kind == "thread":
        handler = app.handler("each")(look)
    else:

        async def each() -> None:
            look()
            await asyncio.sleep(0)

        handler = app.handler("each", timeout=20.0 if kind == "timed" else None)(each)
    if kind == "middleware":

        @app.middleware
        async def binding(job: Job, call_next: CallNext) -> Any:
            assert tenant.get() == "nobody's"
            tenant.set(f"tenant of {job.id}")
            aside.add(own())
            try:
                return await call_next(job)
            finally:
                assert tenant.get() == "somebody's"

    @app.on("job_started")
    async def started() -> None:
        hooks.append(tenant.get())
        tenant.set("a hook's")

    tenant.set("nobody's")
    async with app.worker(concurrency=1):
        tenant.set("a dispatcher's")
        runs = [await handler.dispatch() for _ in range(3)]
        for run in runs:
            await run.result(timeout=20)
    prec = decimal.DefaultContext.prec
    names = [f"tenant of {run.id}" if kind == "middleware" else "nobody's" for run in runs]
    assert seen == [(name, "the program's", prec) for name in names]
    assert len(set(tasks)) == (0 if kind == "thread" else 3)
    if kind == "middleware":
        assert aside == set(tasks)
    assert set(hooks) == {"nobody's"}


async def test_jobs_that_came_by_a_dispatch_or_a_settle_have_no_context_of_it(app: Flowrun) -> None:
    """A job begins from whatever made it ready: a dispatch in the same process, the settle of its parent, a claim."""
    seen: list[str] = []

    @app.handler
    async def step() -> None:
        seen.append(tenant.get())
        tenant.set("a step's")

    @app.handler
    async def begins() -> None:
        tenant.set("a handler's")
        await step.job().dispatch(now=True)
        await step.dispatch()

    async with app.worker(concurrency=4):
        tenant.set("the dispatcher's")
        await (await step.dispatch()).result(timeout=20)
        await (await app.chain(step.job(), step.job()).dispatch()).result(timeout=20)
        await (await begins.dispatch()).result(timeout=20)
        await app.drain()
    assert seen == ["nobody's"] * 5


async def test_nothing_is_kept_of_attempts_that_are_over(app: Flowrun) -> None:
    class Large:
        pass

    held: contextvars.ContextVar[Large] = contextvars.ContextVar("held")

    @app.handler
    async def holds() -> None:
        held.set(Large())

    async with app.worker(concurrency=2):
        for run in await app.dispatch_many([holds.job() for _ in range(50)]):
            await run.result(timeout=20)
        gc.collect()
        assert sum(type(one) is Large for one in gc.get_objects()) <= 2


async def test_an_attempt_that_another_job_cancels_before_it_begins_runs_again_and_uses_none(
    app: Flowrun, looking: None
) -> None:
    """As when a job cancels all tasks of the process, and one of them has not had its first turn."""

    @app.handler(attempts=1)
    async def victim() -> int:
        return 1

    @app.handler
    async def sweeping() -> int:
        return 2

    async with app.worker(concurrency=1):
        begin, others, cut = consumer.Consumers._begin, [], []

        def beginning(self: Any, slot: Any, job: Any) -> None:
            begin(self, slot, job)
            if job.type == "sweeping":
                others.append(job)
            elif not cut:
                context = contextvars.copy_context()
                context.run(app.client.attempt.set, others[0])
                cut.append(context.run(slot.task.cancel))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumer.Consumers, "_begin", beginning)
            assert await (await sweeping.dispatch()).result(timeout=20) == 2
            run = await victim.dispatch()
            assert await run.result(timeout=20) == 1
        assert cut == [True]
        assert (await run.attempts()) == []


async def test_an_attempt_that_is_ended_before_it_begins_is_answered_for(
    app: Flowrun, looking: None, until, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that is cancelled before its first turn never runs: nobody else would settle it, or free its place."""

    @app.handler(attempts=1)
    async def victim() -> int:
        return 1

    @app.handler
    async def fine() -> int:
        return 1

    async with app.worker(concurrency=1) as worker:
        session = worker._session
        assert session is not None
        begin, ended = consumer.Consumers._begin, []

        def cut(self: Any, slot: Any, job: Any) -> None:
            begin(self, slot, job)
            if job.type == "victim" and inspect.getcoroutinestate(slot.task.get_coro()) == inspect.CORO_CREATED:
                ended.append(slot.task.cancel())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumer.Consumers, "_begin", cut)
            run = await victim.dispatch()
            with pytest.raises(JobFailed, match="what ran the attempt was ended"):
                await run.result(timeout=20)
        assert ended == [True]
        assert await (await fine.dispatch()).result(timeout=20) == 1

        async def told() -> list[tuple[str, str | None, int]]:
            (status,) = await app.workers.list()
            return [(one.kind, one.type, one.count) for one in status.trouble]

        async def seen() -> bool:
            return await told() == [("end", "victim", 1)]

        await until(seen, 30)
    assert f"job {run.id} (victim): what ran its attempt was ended" in caplog.text


async def test_backoff_is_still_what_it_says(app: Flowrun) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def once(job: Job) -> int:
        if job.attempt == 1:
            own().cancel()
            await asyncio.sleep(0)
        return job.attempt

    async with app.worker(concurrency=1):
        assert await (await once.dispatch()).result(timeout=20) == 2
