"""What a handler remembers between attempts."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from flowrun import ConfigurationError, Flowrun, FlowrunError, Job, NotStorable, Snooze, backoff

AT_ONCE = backoff.constant(0.0)


@dataclass
class Receipt:
    id: int
    at: datetime


class Once:
    """A function that says how often it ran."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.runs = 0

    async def __call__(self) -> Any:
        self.runs += 1
        return self.value


async def test_a_later_attempt_gets_what_the_first_one_got(app) -> None:
    steps = {repr(value): Once(value) for value in ({"a": [1, "ü"]}, None, "", [], {}, 0, False, 1.5)}
    seen: list[dict[str, Any]] = []

    @app.handler(attempts=3, backoff=AT_ONCE)
    async def work(job: Job) -> None:
        seen.append({name: await job.step(name, once) for name, once in steps.items()})
        if job.attempt < 3:
            raise ValueError("again")

    async with app.worker(concurrency=1):
        await (await work.dispatch()).result(timeout=10)
    assert seen == [{name: once.value for name, once in steps.items()}] * 3
    assert [type(value) for value in seen[1].values()] == [type(once.value) for once in steps.values()]
    assert {once.runs for once in steps.values()} == {1}


async def test_also_after_a_snooze_which_leaves_it_the_first_attempt(app) -> None:
    once, attempts = Once("page"), []

    @app.handler
    async def work(job: Job) -> str:
        page = await job.step("fetch", once)
        attempts.append(job.attempt)
        if len(attempts) == 1:
            raise Snooze(0.01)
        return page

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == "page"
    assert (attempts, once.runs) == ([1, 1], 1)


async def test_each_job_has_its_own(app) -> None:
    @app.handler
    async def work(job: Job, n: int) -> int:
        return await job.step("same", lambda: n)

    async with app.worker(concurrency=4):
        runs = await app.dispatch_many([work.job(n) for n in range(10)])
        assert [await run.result(timeout=10) for run in runs] == list(range(10))


async def test_in_any_order_and_side_by_side(app) -> None:
    together = asyncio.Barrier(3)
    runs: list[int] = []

    async def square(n: int, *, plus: int = 0) -> int:
        runs.append(n)
        async with asyncio.timeout(10):
            await together.wait()
        return n * n + plus

    @app.handler(attempts=2, backoff=AT_ONCE)
    async def work(job: Job) -> list[int]:
        numbers = [1, 2, 3] if job.attempt == 1 else [3, 1, 2]
        values = await asyncio.gather(*(job.step(f"square {n}", square, n, plus=1) for n in numbers))
        if job.attempt == 1:
            raise ValueError("again")
        return values

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == [10, 2, 5]
    assert sorted(runs) == [1, 2, 3]


async def test_one_name_asked_for_twice_at_once_runs_once(app) -> None:
    once = Once(["x"])

    @app.handler
    async def work(job: Job) -> list[list[str]]:
        values = await asyncio.gather(*(job.step("same", once) for _ in range(5)))
        values[0].append("mine")  # each has its own
        return values

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == [["x", "mine"], *[["x"]] * 4]
    assert once.runs == 1


async def test_what_is_raised_passes_on_to_all_and_is_not_remembered(app) -> None:
    runs, asked = [], asyncio.Event()

    async def flaky() -> str:
        runs.append(1)
        await asked.wait()
        if len(runs) == 1:
            raise KeyError("not yet")
        return "now"

    @app.handler(attempts=1)
    async def work(job: Job) -> str:
        async def ask() -> None:
            asked.set()

        await job.step("before", Once())
        asking = (job.step("flaky", flaky) for _ in range(3))
        *errors, _ = await asyncio.gather(*asking, ask(), return_exceptions=True)
        assert [type(error) for error in errors] == [KeyError] * 3
        return await job.step("flaky", flaky)

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == "now"
    assert len(runs) == 2


async def test_one_who_waits_takes_over_from_one_who_is_cancelled(app) -> None:
    began, runs = asyncio.Event(), []

    async def slow() -> int:
        runs.append(1)
        if len(runs) == 1:
            began.set()
            await asyncio.Event().wait()
        return len(runs)

    @app.handler(attempts=1)
    async def work(job: Job) -> int:
        first = asyncio.create_task(job.step("slow", slow))
        await began.wait()
        second = asyncio.create_task(job.step("slow", slow))
        await asyncio.sleep(0)
        first.cancel()
        value = await second
        assert first.cancelled()
        return value

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == 2


async def test_a_plain_function_runs_in_a_thread(app) -> None:
    where: list[threading.Thread] = []

    def read(path: str) -> str:
        where.append(threading.current_thread())
        return path.upper()

    @app.handler(attempts=2, backoff=AT_ONCE)
    async def work(job: Job) -> list[str]:
        values = [await job.step("read", read, path="a"), await job.step("lambda", lambda: Once("b")())]
        if job.attempt == 1:
            raise ValueError("again")
        return values

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == ["A", "b"]
    assert len(where) == 1
    assert where[0] is not threading.main_thread()


async def test_another_handler_as_a_step(app) -> None:
    @app.handler
    async def double(n: int) -> int:
        return 2 * n

    @app.handler
    def triple(n: int) -> int:
        return 3 * n

    @app.handler
    async def work(job: Job) -> int:
        return await job.step("double", double, 2) + await job.step("triple", triple, n=3)

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == 13


async def test_the_first_attempt_sees_the_value_as_later_ones_do(app) -> None:
    async def pair():  # says nothing of what it returns: as JSON has it
        return 1, datetime(2026, 1, 2, tzinfo=UTC)

    async def charge() -> Receipt:
        return Receipt(7, datetime(2026, 1, 2, tzinfo=UTC))

    def words() -> set[str]:
        return {"a"}

    seen: list[Any] = []

    @app.handler(attempts=2, backoff=AT_ONCE)
    async def work(job: Job) -> None:
        large = await job.step("large", lambda: 1e17)
        seen.append(
            [
                await job.step("pair", pair),
                await job.step("charge", charge),
                await job.step("words", words),
                repr(large),
            ]
        )
        if job.attempt == 1:
            raise ValueError("again")

    async with app.worker(concurrency=1):
        await (await work.dispatch()).result(timeout=10)
    assert seen[0] == seen[1]
    assert seen[0][:3] == [[1, "2026-01-02T00:00:00+00:00"], Receipt(7, datetime(2026, 1, 2, tzinfo=UTC)), {"a"}]


@pytest.mark.parametrize(
    ("value", "why"),
    [(object(), "at 'a'.*builtins.object"), (float("nan"), "NaN"), ("x" * 1100, "limit"), ("\0", "NUL")],
)
async def test_what_cannot_be_stored_fails_the_job_at_once(dsn, value, why) -> None:
    app = Flowrun(dsn, max_payload=1024)
    once, caught = Once({"a": value}), []

    @app.handler(attempts=5, backoff=AT_ONCE)
    async def work(job: Job) -> None:
        with pytest.raises(NotStorable, match=f"step 'made'.*{why}") as error:
            await job.step("made", once)
        caught.append(error.value)
        await job.step("made", once)

    async with app.worker(concurrency=1):
        status = await (await work.dispatch()).wait(timeout=10)
    assert (status.state, status.attempts, once.runs) == ("failed", 1, 2)
    assert status.error_type == "flowrun.errors.NotStorable"
    assert isinstance(caught[0], ValueError)


async def test_what_does_not_fit_its_annotation_is_not_remembered(app, connection) -> None:
    async def charge() -> Receipt:
        return {"id": "seven"}  # type: ignore[return-value]

    @app.handler(attempts=1)
    async def work(job: Job) -> None:
        await job.step("charge", charge)

    async with app.worker(concurrency=1):
        status = await (await work.dispatch()).wait(timeout=10)
    assert status.error_type == "flowrun.errors.FlowrunError"
    assert "'charge' does not fit what its function says" in status.error
    assert "seven" not in status.error
    assert await connection.fetchval("select count(*) from flowrun.steps") == 0


async def test_a_late_attempt_changes_nothing_and_gets_what_is_remembered(app, connection) -> None:
    """Another attempt remembers the step while this one's function still runs."""

    @app.handler
    async def work(job: Job) -> str:
        async def fetch() -> str:
            await connection.execute("insert into flowrun.steps values ($1, 'fetch', '\"theirs\"')", job.id)
            return "mine"

        return await job.step("fetch", fetch)

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == "theirs"
    assert await connection.fetchval("select value from flowrun.steps") == '"theirs"'


async def test_a_job_without_steps_never_looks_for_them(app, connection) -> None:
    await connection.execute("alter table flowrun.steps rename to steps_elsewhere")

    @app.handler(attempts=2, backoff=AT_ONCE)
    async def work(job: Job) -> int:
        if job.attempt == 1:
            raise ValueError("again")
        return job.attempt

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == 2
    await connection.execute("alter table flowrun.steps_elsewhere rename to steps")


async def test_a_step_cannot_wait_for_itself(app) -> None:
    @app.handler(attempts=1)
    async def work(job: Job) -> str:
        async def inner() -> str:
            return await job.step("outer", Once("x"))

        with pytest.raises(FlowrunError, match="'outer' waits for itself"):
            await job.step("outer", inner)

        async def other() -> str:
            return await job.step("inside", Once("y"))

        return await job.step("outer", other)

    async with app.worker(concurrency=1):
        assert await (await work.dispatch()).result(timeout=10) == "y"


async def test_a_job_made_by_hand_just_runs_them() -> None:
    job = Job(id=uuid4(), type="x")
    assert await job.step("a", Once({"a": (1,)})) == {"a": (1,)}
    assert await job.step("b", lambda n: n + 1, 1) == 2
    with pytest.raises(ConfigurationError, match="a step's name"):
        await job.step("", Once())
    with pytest.raises(TypeError, match=r"job\.step\('fetch', fetch, url\)"):
        await job.step("fetch", Once()())  # type: ignore[call-overload]
