"""Leaving: running jobs end, the rest is handed back without using an attempt."""

from __future__ import annotations

import asyncio

import pytest

from flowrun import ConfigurationError, Flowrun, MigrationNeeded

pytestmark = pytest.mark.timeout(60)


async def test_leaving_lets_running_jobs_end(app: Flowrun, connection) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @app.handler
    async def slow() -> str:
        begun.set()
        await go.wait()
        return "done"

    async with app:
        async with app.worker(concurrency=1):
            run = await slow.dispatch()
            second = await slow.dispatch()
            await asyncio.wait_for(begun.wait(), 10)
            asyncio.get_running_loop().call_later(0.1, go.set)
        assert await run.result(timeout=1) == "done"
        status = await second.status()
        assert (status.state, status.attempt) == ("ready", 0)
    assert await connection.fetchval("select count(*) from flowrun.workers") == 0
    assert await connection.fetchval("select count(*) from flowrun.leases") == 0


async def test_what_does_not_end_in_time_is_handed_back(app: Flowrun) -> None:
    begun = asyncio.Event()
    cancelled: list[bool] = []

    @app.handler
    async def stuck() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with app:
        async with app.worker(concurrency=1, grace=0.1):
            run = await stuck.dispatch()
            await asyncio.wait_for(begun.wait(), 10)
        status = await run.status()
    assert (status.state, status.attempt) == ("ready", 0)
    assert cancelled == [True]


async def test_an_error_in_the_block_still_drains(app: Flowrun) -> None:
    @app.handler
    async def quick() -> None: ...

    with pytest.raises(RuntimeError, match="mine"):
        async with app.worker():
            await (await quick.dispatch()).result(timeout=10)
            raise RuntimeError("mine")


async def test_a_worker_refuses_a_database_without_tables(flowrun_postgres_server) -> None:
    app = Flowrun(flowrun_postgres_server[0], schema="nothing_here")
    with pytest.raises(MigrationNeeded, match="flowrun migrate"):
        async with app.worker():
            pass


async def test_bad_worker_settings_name_what_is_allowed(app: Flowrun) -> None:
    for bad in (0, -1, True, 1.5, 100_000):
        with pytest.raises(ConfigurationError, match="concurrency"):
            async with app.worker(concurrency=bad):  # type: ignore[arg-type]
                pass
    with pytest.raises(ConfigurationError, match="queues"):
        async with app.worker(queues="default"):
            pass


async def test_a_handler_that_raises_base_exceptions_does_not_end_the_worker(app: Flowrun) -> None:
    @app.handler(attempts=1)
    async def leave(kind: str) -> None:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "cancel": asyncio.CancelledError()}[kind]

    @app.handler
    async def fine() -> int:
        return 1

    async with app.worker(concurrency=2):
        for kind in ("exit", "interrupt", "cancel"):
            status = await (await leave.dispatch(kind)).wait(timeout=10)
            assert status.state == "failed"
        assert await (await fine.dispatch()).result(timeout=10) == 1


async def test_a_blocked_event_loop_keeps_its_leases(dsn: str, connection) -> None:
    """Heartbeats come from a thread of their own: a handler that blocks the loop past the lease loses nothing."""
    import time

    app = Flowrun(dsn, lease=1.0, poll=0.5)

    @app.handler
    async def block() -> str:
        time.sleep(2.5)  # noqa: ASYNC251 - the point
        return "done"

    @app.handler
    async def idle() -> None: ...

    other = Flowrun(dsn, lease=1.0, poll=0.5)

    async with app.worker(concurrency=1), other:
        run = await block.dispatch()
        assert await run.result(timeout=20) == "done"
        assert (await run.status()).attempt == 1
