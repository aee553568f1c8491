"""The same done to all that pass a filter: jobs alone and in flows, with a dry run, in sets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, NotFound
from flowrun.client import bulk


@pytest.fixture
def shop(app: Flowrun) -> dict[str, bool]:
    """``charge`` fails while "broken" is set; ``wait`` runs until "go" is."""
    flags = {"broken": True, "go": False}

    @app.handler(attempts=1, queue="billing")
    async def charge(order_id: int, token: str = "bad") -> str:
        if flags["broken"] and token == "bad":
            raise ValueError("refused")
        return f"{order_id} {token}"

    @app.handler
    async def wait(n: int = 0) -> str:
        while not flags["go"]:
            await asyncio.sleep(0.01)
        return "went"

    @app.handler
    async def note(text: str = "") -> str:
        return text

    return flags


async def states(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch("select state, count(*) from flowrun.job_status group by state order by state")
    return dict(rows)


async def test_cancelling_by_filter(app, shop, connection) -> None:
    async with app, app.worker(concurrency=4, queues=["default"]) as worker:
        tagged = await app.dispatch_many([app.job("charge", {"order_id": n}, tags=["eu"]) for n in range(5)])
        others = await app.dispatch_many([app.job("charge", {"order_id": n}, delay=600.0) for n in range(3)])
        flow = app.flow("order")
        first = flow.add(app.job("wait"), name="first")
        flow.add(app.job("charge", {"order_id": 1}), after=first, name="second")
        flow.add(app.job("note"), after=flow.nodes[1].finished, name="third")
        run = await flow.dispatch()
        running = await app.job("wait").dispatch()
        while (await running.status()).state != "running" or (await run["first"].status()).state != "running":
            await asyncio.sleep(0.01)

        async def found(**filters: Any) -> set[Any]:
            return set(await app.jobs.cancel(**filters, dry_run=True))

        assert await found(tag="eu") == {job.id for job in tagged}
        assert await found(type="charge", state="scheduled") == {job.id for job in others}
        assert await found(state="running", type="wait") == {running.id, run["first"].id}
        assert await found(state="waiting") == {run["second"].id, run["third"].id}
        assert await found(flow=run.id, queue="billing") == await found(flow=str(run.id), type="charge")
        assert len(await found(since=datetime.now(UTC) - timedelta(hours=1))) == 12
        assert await found(until=datetime.now(UTC) - timedelta(hours=1)) == set()
        before = await states(connection)
        assert before == {"ready": 5, "running": 2, "scheduled": 3, "waiting": 2}

        done = await app.jobs.cancel(type="charge", actor="ann", reason="wrong price")
        assert len(done) == len(set(done)) == 9
        for job in (*tagged, *others):
            status = await job.status()
            assert (status.state, status.error) == ("cancelled", "by ann: wrong price")
            [entry] = await job.audit()
            assert (entry.verb, entry.actor, entry.reason) == ("cancel", "ann", "wrong price")
        assert await app.jobs.cancel(type="charge") == []
        assert set(await app.jobs.cancel(type="wait", state="running")) == {running.id, run["first"].id}
        assert (await running.wait(timeout=20)).state == "cancelled"
        status = await run.wait(timeout=20)
        assert (status.state, status.nodes["third"].state) == ("cancelled", "succeeded")
        assert [(entry.verb, entry.node) for entry in await run.audit()] == [("cancel", "second"), ("cancel", "first")]
        del worker


async def test_cancelling_many_goes_in_sets(app, shop, connection) -> None:
    """No statement a job: 3,000 of them take few round trips."""
    count = 3 * bulk.BATCH
    async with app:
        await app.dispatch_many([app.job("note", delay=0.001 if n % 2 else None) for n in range(count)])
        sent = 0
        async with app.client.database.acquire() as pooled:
            kind = type(pooled._con)
        original = kind._execute

        async def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal sent
            sent += 1
            return await original(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "_execute", counted)
            assert len(await app.jobs.cancel(type="note")) == count
        assert sent < 100
    assert await states(connection) == {"cancelled": count}


async def test_retrying_by_filter(app, shop, connection) -> None:
    async with app, app.worker(concurrency=4):
        begun = datetime.now(UTC) - timedelta(seconds=1)
        runs = await app.dispatch_many([app.job("charge", {"order_id": n}, tags=[f"t{n % 2}"]) for n in range(6)])
        flows = []
        for n in range(3):
            flow = app.flow("order")
            first = flow.add(app.job("charge", {"order_id": 10 + n}), name="pay")
            flow.add(app.job("note", {"text": "sent"}), after=first, name="mail")
            flows.append(await flow.dispatch())
        for run in (*runs, *flows):
            await run.wait(timeout=20)
        assert await app.failed.discard(runs[5].id) == 1
        assert len(await app.jobs.retry(type="charge", dry_run=True)) == 8
        assert len(await app.jobs.retry(tag="t1", dry_run=True)) == 2
        assert await app.jobs.retry(until=begun) == []
        assert len(await app.failed.retry_all(since=begun, error="ValueError", dry_run=True)) == 8
        for wrong in ({"order": 1}, {"order_id": "x"}, {"token": 5}):
            with pytest.raises(InvalidArguments, match="job 'charge'"):
                await app.jobs.retry(type="charge", args=wrong)
            with pytest.raises(InvalidArguments, match="job 'charge'"):
                await app.failed.retry_all(args=wrong, dry_run=True)
            with pytest.raises(InvalidArguments, match="job 'charge'"):
                await app.failed.retry(runs[0].id, args=wrong)
        assert await states(connection) == {"failed": 9, "skipped": 3}

        done = await app.failed.retry_all(args={"token": "new"}, actor="ann", reason="new cards")
        assert len(done) == 8
        assert [await run.result(timeout=20) for run in runs[:5]] == [f"{n} new" for n in range(5)]
        for n, run in enumerate(flows):
            status = await run.wait(timeout=20)
            assert status.state == "succeeded"
            assert await run["pay"].result() == f"{10 + n} new"
            [entry] = await run.audit()
            assert (entry.verb, entry.node, entry.actor) == ("retry", "pay", "ann")
        assert await states(connection) == {"failed": 1, "succeeded": 11}
        assert await app.failed.list() == []

        off = await app.dispatch_many([app.job("note", {"text": "late"}, delay=600.0) for _ in range(3)])
        await app.jobs.cancel(type="note", state="scheduled")
        assert len(await app.jobs.retry(state="cancelled", type="note")) == 3
        assert [await run.result(timeout=20) for run in off] == ["late"] * 3


async def test_discarding_by_filter(app, shop) -> None:
    async with app, app.worker(concurrency=4):
        runs = await app.dispatch_many([app.job("charge", {"order_id": n}) for n in range(4)])
        for run in runs:
            await run.wait(timeout=20)
        with pytest.raises(ConfigurationError, match="needs one filter at least: type=, queue=, tag="):
            await app.failed.discard_all()
        assert len(await app.failed.discard_all(type="charge", dry_run=True)) == 4
        assert len(await app.failed.discard_all(queue="billing", reason="paid by hand")) == 4
        assert await app.failed.discard_all(every=True) == []
        assert (await runs[0].audit())[0].reason == "paid by hand"


async def test_deleting_by_filter(app, shop, connection) -> None:
    shop["broken"] = False
    async with app, app.worker(concurrency=4):
        runs = await app.dispatch_many([app.job("note", {"text": str(n)}, tags=[f"t{n % 2}"]) for n in range(6)])
        late = await app.job("note", delay=600.0, tags=["t0"]).dispatch()
        flow = app.flow("order", tags=["t0"])
        flow.add(app.job("note"), name="node")
        order = await flow.dispatch()
        other = app.flow("other")
        other.add(app.job("note"), name="node")
        kept = await other.dispatch()
        for run in (*runs, order, kept):
            await run.wait(timeout=20)
        assert set(await app.jobs.delete(tag="t0", dry_run=True)) == {run.id for run in runs[::2]}
        assert set(await app.jobs.delete(tag="t0")) == {run.id for run in runs[::2]}
        with pytest.raises(NotFound):
            await runs[0].status()
        assert (await late.status()).state == "scheduled"
        assert (await order.status()).state == "succeeded"
        assert await app.flows.delete(tag="t0", state="failed") == []
        assert await app.flows.delete(tag="t0", dry_run=True) == [order.id]
        assert await app.flows.delete(name="order", state="succeeded") == [order.id]
        with pytest.raises(NotFound):
            await app.get_flow(order.id)
        assert (await kept.status()).state == "succeeded"
        for verb in (app.jobs.cancel, app.jobs.delete, app.flows.cancel, app.flows.delete):
            with pytest.raises(ConfigurationError, match="needs one filter at least"):
                await verb()
        with pytest.raises(ConfigurationError, match="state= must be one of ready, running, scheduled, waiting"):
            await app.jobs.cancel(state="failed")
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 3 + 1 + 2


async def test_flows_by_filter(app, shop) -> None:
    async with app, app.worker(concurrency=4):
        failing = []
        for n in range(2):
            flow = app.flow("bill", tags=[f"t{n}"])
            flow.add(app.job("charge", {"order_id": n}), name="pay")
            failing.append(await flow.dispatch())
        waiting = []
        for _ in range(3):
            flow = app.flow("order")
            flow.wait_for("go")
            waiting.append(await flow.dispatch())
        for run in failing:
            await run.wait(timeout=20)
        assert await app.flows.cancel(name="bill") == []
        assert await app.flows.cancel(name="order", dry_run=True) == [run.id for run in waiting]
        assert await app.flows.cancel(name="order", actor="ann") == [run.id for run in waiting]
        assert [(await run.wait(timeout=20)).state for run in waiting] == ["cancelled"] * 3
        shop["broken"] = False
        assert await app.flows.retry(tag="t1", dry_run=True) == [failing[1].id]
        assert await app.flows.retry(name="bill") == [run.id for run in failing]
        assert [(await run.wait(timeout=20)).state for run in failing] == ["succeeded"] * 2
        assert await app.flows.retry(name="order", state="cancelled") == [run.id for run in waiting]
        for run in waiting:
            await run.signal("go")
            assert (await run.wait(timeout=20)).state == "succeeded"


async def test_many_of_mixed_types_come_back_in_order(app, shop) -> None:
    shop["broken"], shop["go"] = False, True
    async with app, app.worker(concurrency=8):
        kinds = ["note", "charge", "wait"]
        given = [("note", {"text": "0"}), ("charge", {"order_id": 1}), ("wait", {"n": 2})] * 20
        runs = await app.dispatch_many([app.job(type, args) for type, args in given])
        assert [run.type for run in runs] == kinds * 20
        assert [await run.result(timeout=20) for run in runs] == ["0", "1 bad", "went"] * 20
