"""What runs when a job has failed for good: a job of its own, written in the commit that records the failure."""

from __future__ import annotations

import pytest

from flowrun import ConfigurationError, Discard, InvalidArguments, Job, JobError, JobFailed, backoff


@pytest.fixture
def told() -> list[tuple[Job, JobError]]:
    return []


@pytest.fixture
def pay(app, told):
    """Fails always, for its third time for good."""

    @app.handler("pay", attempts=3, backoff=backoff.constant(0.0), queue="billing")
    async def pay(order_id: int) -> None:
        error = ValueError(f"card of {order_id} refused")
        error.add_note("call the bank")
        raise error from KeyError("token")

    @pay.on_failure
    async def sorry(job: Job, error: JobError) -> None:
        told.append((job, error))

    return pay


async def test_of_a_handler(app, pay, told, until, connection) -> None:
    async with app, app.worker(concurrency=4):
        run = await pay.job(order_id=7).options(tags=["eu"]).dispatch()
        with pytest.raises(JobFailed):
            await run.result(timeout=10)
        await until(lambda: told)
    [(job, error)] = told
    assert (job.id, job.type, job.queue, job.attempt, job.tags) == (run.id, "pay", "billing", 3, ("eu",))
    assert (error.type, error.message, error.attempt) == ("ValueError", "card of 7 refused", 3)
    assert error.args == {"order_id": 7}
    assert error.detail == {"notes": ["call the bank"], "cause": "KeyError: 'token'"}
    assert error.traceback is not None
    assert "refused" in error.traceback
    assert (error.job_id, error.job_type, error.failed_at is None) == (run.id, "pay", False)
    stored = await connection.fetchrow(
        "select type, queue, dispatched_by from flowrun.job_status where type like '%.on_failure'"
    )
    assert tuple(stored) == ("pay.on_failure", "billing", run.id)


async def test_a_failure_that_is_retried_by_hand_and_fails_again_is_told_again(app, pay, told, until) -> None:
    async with app, app.worker(concurrency=4):
        run = await pay.dispatch(order_id=1)
        await until(lambda: len(told) == 1)
        await run.retry()
        await until(lambda: len(told) == 2)


async def test_of_a_job_instead_of_its_handlers(app, pay, told, until) -> None:
    mails = []

    @app.handler
    async def mail(to: str, error: JobError) -> None:
        mails.append((to, error.message, error.job_type))

    async with app, app.worker(concurrency=4):
        await pay.job(order_id=2).options(on_failure=mail.job(to="ops")).dispatch()
        await until(lambda: mails)
    assert mails == [("ops", "card of 2 refused", "pay")]
    assert not told


async def test_it_is_retried_like_any_job(app, until) -> None:
    tries = []

    @app.handler(attempts=1)
    async def broken() -> None:
        raise ValueError("no")

    @broken.on_failure(attempts=2, backoff=backoff.constant(0.0))
    async def clean(job: Job) -> None:
        tries.append(job.id)
        if len(tries) == 1:
            raise OSError("not yet")

    async with app, app.worker(concurrency=2):
        run = await broken.dispatch()
        await until(lambda: len(tries) == 2)
    assert tries == [run.id] * 2


@pytest.mark.parametrize("how", ["node", "inner", "spawned", "map", "default"])
async def test_in_flows(app, told, until, how) -> None:
    @app.handler
    async def note(error: JobError) -> None:
        told.append(error.name)

    @app.handler
    async def spawner(job: Job) -> None:
        job.spawn(app.job("bad", {}, on_failure=note.job()), name="spawned")

    @app.handler("bad", attempts=1)
    async def bad(item: int = 0) -> None:
        raise ValueError("no")

    flow = app.flow("f")
    job = bad.job().options(on_failure=note.job())
    if how == "node":
        flow.add(job, name="node")
    elif how == "inner":
        inner = app.flow("inner")
        inner.add(job, name="x")
        flow.add(inner)
    elif how == "spawned":
        flow.add(spawner.job())
    elif how == "map":
        flow.map(app.job("bad", {}, on_failure=note.job()), [1], argument="item", name="m")
    else:
        flow = app.flow("f", on_failure=note.job())
        flow.add(bad.job(), name="default")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        assert (await run.wait(timeout=10)).state == "failed"
        await until(lambda: told)
    assert told == [{"inner": "inner/x", "map": "m[0]"}.get(how, how)]


async def test_by_name_and_without_running(app, told, until) -> None:
    """A handler that the dispatching process does not know; and jobs that fail although no handler of theirs ran."""

    @app.handler
    async def note(error: JobError) -> None:
        told.append((error.job_type, error.type))

    @app.handler
    async def known(number: int) -> None: ...

    async with app, app.worker(concurrency=2, queues=["default"]):
        run = await app.job("elsewhere", {}, queue="nobodys", start_by=0.05, on_failure=note.job()).dispatch()
        with pytest.raises(JobFailed):
            await run.result(timeout=10)
        await until(lambda: told)
    assert told == [("elsewhere", "flowrun.StartedTooLate")]


async def test_only_failures_count(app, told, until) -> None:
    @app.handler(attempts=2, backoff=backoff.constant(0.0))
    async def flaky(job: Job) -> None:
        if job.attempt == 1:
            raise ValueError("once")

    @flaky.on_failure
    async def never(job: Job) -> None:
        told.append(job)

    @app.handler
    async def given_up() -> None:
        raise Discard("not wanted")

    @given_up.on_failure
    def in_thread(error: JobError) -> None:
        told.append(error.message)

    async with app, app.worker(concurrency=2):
        await (await flaky.dispatch()).result(timeout=10)
        cancelled = await flaky.job().options(delay=60.0).dispatch()
        assert await cancelled.cancel() == "cancelled"
        await given_up.dispatch()
        await until(lambda: told)
    assert told == ["not wanted"]


async def test_what_cannot_be(app) -> None:
    @app.handler
    async def work(number: int) -> None: ...

    @work.on_failure
    async def first(job: Job) -> None: ...

    with pytest.raises(ConfigurationError, match="has an on_failure already"):

        @work.on_failure
        async def second(job: Job) -> None: ...

    @app.handler
    async def other(error: JobError) -> None: ...

    with pytest.raises(ConfigurationError, match="nothing else"):

        @other.on_failure
        async def third(job: Job, text: str) -> None: ...

    async with app, app.worker(concurrency=1):
        with pytest.raises(InvalidArguments, match="on_failure= job 'work'"):
            await other.job().options(on_failure=work.job("x")).dispatch()
        flow = app.flow("f")
        a = flow.add(work.job(1))
        flow.add(work.job(2).options(on_failure=work.job(a.result)))
        with pytest.raises(InvalidArguments, match="cannot use results of nodes"):
            await flow.dispatch()
        with pytest.raises(ConfigurationError, match="cannot have key="):
            await work.job(1).options(on_failure=work.job(1).options(key="k")).dispatch()
        with pytest.raises(JobFailed, match="only run after a failure"):
            await (await other.dispatch()).result(timeout=10)
