"""Jobs that failed for good are kept with all that is needed to run them again, or to see why not to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, NotFound, NotPossible


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.detail = {"code": code}


@pytest.fixture
def charge(app):
    @app.handler(attempts=1, queue="billing")
    async def charge(order_id: int, token: str = "bad") -> str:
        if token == "bad":
            raise Refused(402)
        return f"paid {order_id}"

    return charge


@pytest.fixture
def other(app):
    @app.handler(attempts=1)
    async def other() -> None:
        raise TimeoutError("too slow")

    return other


async def test_what_is_kept(app, charge, connection) -> None:
    async with app, app.worker(concurrency=2):
        run = await charge.job(7).options(tags=["eu"], priority=2).dispatch()
        await run.wait(timeout=10)
        [job] = await app.failed.list()
        assert await app.failed.get(str(run.id)) == job
    assert (job.connection, job.queue, job.type, job.id, job.priority) == ("default", "billing", "charge", run.id, 2)
    assert (job.args, job.options["tags"], job.attempt) == ({"order_id": 7}, ["eu"], 1)
    assert job.error_type is not None
    assert job.error_type.endswith(".Refused")
    assert (job.message, job.detail) == ("refused with 402", {"detail": {"code": 402}})
    assert job.traceback is not None
    assert "raise Refused(402)" in job.traceback
    assert job.worker is not None
    assert datetime.now(UTC) - timedelta(minutes=1) < job.failed_at < datetime.now(UTC) + timedelta(minutes=1)
    columns = await connection.fetchrow("select * from flowrun.failed_jobs")
    assert columns["message"] == "refused with 402"


async def test_filters(app, charge, other) -> None:
    async with app, app.worker(concurrency=2):
        begun = datetime.now(UTC) - timedelta(seconds=1)
        first = await charge.job(1).options(tags=["eu"]).dispatch()
        await first.wait(timeout=10)
        flow = app.flow("f")
        inner = app.flow("inner")
        inner.add(other.job())
        flow.add(inner)
        run = await flow.dispatch()
        await run.wait(timeout=10)
        second = run["inner/other"].id

        async def found(**filters: object) -> list[object]:
            return [job.id for job in await app.failed.list(**filters)]

        assert await found() == [second, first.id]
        assert await found(limit=1) == [second]
        assert await found(type="charge") == await found(queue="billing") == await found(tag="eu") == [first.id]
        assert await found(error="Refused") == [first.id]
        for pattern in ("%", "_efused", "Ref%", "efused", ".Refused", "", "\\Refused"):
            assert await found(error=pattern) == []
            assert await app.failed.retry_all(error=pattern, dry_run=True) == []
        assert await found(error="TimeoutError") == await found(flow=run.id) == [second]
        assert await found(since=begun) == [second, first.id]
        assert await found(until=begun) == []
        with pytest.raises(ConfigurationError, match="whole number from 1"):
            await found(limit=0)
        with pytest.raises(NotFound, match="may have been retried or discarded"):
            await app.failed.get(run.id)


async def test_retrying(app, charge, other) -> None:
    async with app, app.worker(concurrency=2):
        runs = [await charge.dispatch(n) for n in range(3)]
        for run in runs:
            await run.wait(timeout=10)
        late = await other.dispatch()
        await late.wait(timeout=10)
        await app.failed.retry(runs[0].id, args={"order_id": 0, "token": "good"}, actor="ann", reason="new card")
        assert await runs[0].result(timeout=10) == "paid 0"
        assert [(entry.actor, entry.verb) for entry in await runs[0].audit()] == [("ann", "retry")]
        with pytest.raises(NotPossible):
            await app.failed.retry(runs[0].id)
        wanted = {runs[1].id, runs[2].id}
        assert set(await app.failed.retry_all(type="charge", dry_run=True)) == wanted
        assert {job.id for job in await app.failed.list(type="charge")} == wanted
        done = await app.failed.retry_all(type="charge", args={"order_id": 9, "token": "good"})
        assert set(done) == wanted
        assert [await run.result(timeout=10) for run in runs[1:]] == ["paid 9", "paid 9"]
        assert [job.id for job in await app.failed.list()] == [late.id]


async def test_a_node_of_a_flow_is_retried_with_what_it_had_skipped(app, charge, step, ran) -> None:
    flow = app.flow("order")
    pay = flow.add(charge.job(1), name="pay")
    flow.add(step("ship"), after=pay, name="ship")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        assert (await run.wait(timeout=10)).state == "failed"
        [job] = await app.failed.list(flow=run.id)
        await app.failed.retry(job.id, args={"order_id": 1, "token": "good"})
        assert (await run.wait(timeout=10)).state == "succeeded"
    assert ran == ["ship"]


async def test_discarding(app, charge, connection) -> None:
    async with app, app.worker(concurrency=2):
        runs = [await charge.dispatch(n) for n in range(3)]
        for run in runs:
            await run.wait(timeout=10)
        assert await app.failed.discard(runs[0].id, actor="ann", reason="paid by hand") == 1
        assert await app.failed.discard(runs[0].id) == 0
        assert await app.failed.discard([str(runs[1].id)]) == 1
        assert [job.id for job in await app.failed.list()] == [runs[2].id]
        assert (await runs[0].status()).state == "failed"
        assert [(e.verb, e.reason) for e in await runs[0].audit()] == [("discard", "paid by hand")]
        await runs[0].retry(args={"order_id": 5, "token": "good"})
        assert await runs[0].result(timeout=10) == "paid 5"


async def test_arguments_of_a_retry_can_be_dropped(app, dsn) -> None:
    """One that a release has removed, or that was added by mistake where the handler is not known."""
    elsewhere = Flowrun(dsn)

    @app.handler("pay", attempts=1)
    async def pay(order: int, note: str = "") -> str:
        if order < 0:
            raise ValueError("no such order")
        return f"{order}{note}"

    async with app.worker(concurrency=1), elsewhere:
        first = await elsewhere.job("pay", {"order": -1}).dispatch()
        await first.wait(timeout=10)
        await elsewhere.failed.retry(first.id, args={"order": 7, "card": 1})  # who does not know it cannot check
        assert "card" in str((await first.wait(timeout=10)).error)
        with pytest.raises(InvalidArguments, match="card"):
            await app.failed.retry(first.id, args={"card": 2})
        with pytest.raises(InvalidArguments, match="needs argument 'order'"):
            await app.failed.retry(first.id, drop=["order"])
        with pytest.raises(InvalidArguments, match="'order' is to be replaced and dropped"):
            await app.failed.retry(first.id, args={"order": 2}, drop=["order"])
        with pytest.raises(InvalidArguments, match="list of names"):
            await app.failed.retry(first.id, drop="card")
        await app.failed.retry(first.id, drop=["card", "never there"])
        assert await first.result(timeout=10) == "7"

        many = [await elsewhere.job("pay", {"order": 1, "card": n}).dispatch() for n in range(2)]
        for run in many:
            await run.wait(timeout=10)
        assert len(await app.failed.retry_all(type="pay", drop=["card"], args={"note": "!"})) == 2
        assert [await run.result(timeout=10) for run in many] == ["1!", "1!"]


async def test_arguments_of_a_node_can_be_dropped(app, dsn) -> None:
    @app.handler("pay", attempts=1)
    async def pay(order: int) -> int:
        return order

    @app.handler("made")
    async def made() -> int:
        return 5

    elsewhere = Flowrun(dsn)
    flow = elsewhere.flow("f")
    first = flow.add(elsewhere.job("made"), name="first")
    flow.add(elsewhere.job("pay", {"order": 3, "card": first.result}), name="second")
    async with app.worker(concurrency=1), elsewhere:
        run = await flow.dispatch()
        assert (await run.wait(timeout=10)).nodes["second"].state == "failed"
        assert await run.retry(drop={"second": ["card"]}) == 1
        assert await run.result(timeout=10) == 3
