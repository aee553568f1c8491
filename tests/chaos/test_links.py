"""Links that fall silent, lose answers, or break: noticed within a bounded time, by everybody, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from flowrun import Flowrun, Job, PoolExhausted, backoff
from flowrun.client import wait
from flowrun.store import link, pool
from flowrun.worker import heartbeat
from tests.chaos.conftest import Through

pytestmark = pytest.mark.timeout(120)

Until = Callable[..., Awaitable[None]]
SAID = {"claim": [b"taken.attempt"], "settle": [b"as note, id, (least(used"], "heartbeat": [b"expires_at = now()"]}


def make(dsn: str, poll: float = 30.0, **options: str) -> Flowrun:
    app = Flowrun(dsn, lease=2.0, poll=poll, **options)  # type: ignore[arg-type]

    @app.handler(attempts=1)
    async def echo(value: int) -> int:
        return value

    return app


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PATIENCE", 2.0)
    monkeypatch.setattr(wait, "ROUND_TRIP", 1.0)


@pytest.mark.parametrize("whose", SAID)
async def test_a_worker_notices_a_link_that_fell_silent(dsn: str, through: Through, until: Until, whose: str) -> None:
    """Half-open: no reset, no end, only silence. Afterwards notifications are heard again.

    Who claims also listens, so it is the poll that finds out for it; the others do not need it.
    """
    app = make(through.dsn, poll=5.0 if whose == "claim" else 30.0)
    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        assert await (await other.job("echo", {"value": 1}).dispatch()).result(timeout=20) == 1
        silent = through.proxy.that_said(*SAID[whose])
        assert len(silent) == 1
        silent[0].silent = True
        # One job alone: the claim that its notification brought about is the one that is lost.
        begun = time.monotonic()
        assert await (await other.job("echo", {"value": 2}).dispatch()).result(timeout=60) == 2
        assert time.monotonic() - begun < 20, "it was not noticed in time"
        await until(lambda: [one for one in through.proxy.that_said(*SAID[whose]) if not one.silent], 60)
        # Whoever was silent is back for good.
        assert await (await other.job("echo", {"value": 5}).dispatch()).result(timeout=20) == 5


@pytest.mark.parametrize("rung", [False, True])
async def test_a_claimer_s_half_open_link_costs_a_poll_and_a_second(dsn: str, through: Through, rung: bool) -> None:
    """Not the time that a claim may take, which is the lease: the server is asked, by another way, what became of it."""
    app = Flowrun(through.dsn, lease=60.0, poll=1.0)

    @app.handler(attempts=1)
    async def echo(value: int) -> float:
        return time.monotonic()

    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        await (await other.job("echo", {"value": 1}).dispatch()).result(timeout=20)
        [claims] = through.proxy.that_said(*SAID["claim"])
        claims.silent = True
        dispatched = time.monotonic()
        by = app if rung else other
        runs = await asyncio.gather(*(by.job("echo", {"value": n}).dispatch() for n in range(5)))
        at = [await run.result(timeout=50) for run in runs]
        # It says a second; the machine of a test may be slow. Without the question it is the lease.
        assert max(at) - dispatched < 1.0 + 1.0 + 8.0


async def test_a_claim_that_only_takes_long_keeps_its_link(
    dsn: str, through: Through, connection: asyncpg.Connection, until: Until
) -> None:
    app = make(through.dsn, poll=0.5)
    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        assert await (await other.job("echo", {"value": 1}).dispatch()).result(timeout=20) == 1
        [before] = through.proxy.that_said(*SAID["claim"])
        run = await other.job("echo", {"value": 2}, delay=0.8).dispatch()
        locker = await asyncpg.connect(dsn)
        async with locker.transaction():
            await locker.execute("lock table flowrun.leases in access exclusive mode")

            async def waits() -> bool:
                return bool(
                    await connection.fetchval(
                        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%select r.ctid%'"
                        " and now() - query_start > interval '1.5 seconds'"
                    )
                )

            await until(waits)
        await locker.close()
        assert await run.result(timeout=20) == 2
        assert through.proxy.that_said(*SAID["claim"]) == [before]


@pytest.mark.parametrize("unheard", [True, False])
async def test_a_worker_that_cannot_hear_notices_it_at_its_start_says_so_once_and_polls(
    dsn: str, through: Through, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    unheard: bool,
) -> None:  # fmt: skip
    """LISTEN through a pooler in transaction mode succeeds, and nothing is ever heard."""
    looked: list[bool] = []
    look = heartbeat.Heartbeat._hear_oneself

    async def looking(self: heartbeat.Heartbeat) -> None:
        await look(self)
        looked.append(True)

    monkeypatch.setattr(heartbeat.Heartbeat, "_hear_oneself", looking)
    monkeypatch.setattr(heartbeat, "ECHO", 0.2 if unheard else 30.0)
    through.proxy.unheard = unheard
    app = Flowrun(dsn, listen_dsn=f"{through.dsn}?sslmode=disable", pooler=True, lease=2.0, poll=0.5)
    app.handler("echo")(lambda value: value)

    def told() -> list[str]:
        return [message for message in caplog.messages if "LISTEN was accepted" in message]

    async with app.worker(concurrency=2), Flowrun(dsn) as other:
        await until(lambda: told() if unheard else looked)
        assert await (await other.job("echo", {"value": 1}).dispatch()).result(timeout=30) == 1
        (before,) = through.proxy.that_said(b"LISTEN")
        before.cut()
        await until(lambda: [one for one in through.proxy.that_said(b"LISTEN") if one is not before])
        assert await (await other.job("echo", {"value": 2}).dispatch()).result(timeout=30) == 2
    assert bool(looked) is not unheard
    assert len(told()) == unheard
    if unheard:
        assert "polls every 0.5 s; give Flowrun(listen_dsn=...)" in told()[0]


async def test_the_listener_of_those_who_wait_is_replaced(dsn: str, through: Through, until: Until) -> None:
    async with make(dsn).worker(concurrency=2), Flowrun(through.dsn) as waiting:
        assert await (await waiting.job("echo", {"value": 1}).dispatch()).result(timeout=20) == 1
        await until(lambda: through.proxy.that_said(b"LISTEN"))
        [silent] = through.proxy.that_said(b"LISTEN")
        silent.silent = True
        assert await (await waiting.job("echo", {"value": 2}).dispatch()).result(timeout=20) == 2
        await until(lambda: [one for one in through.proxy.that_said(b"LISTEN") if not one.silent], 60)


async def test_a_dispatch_gives_up_a_silent_link_and_uses_another(
    through: Through, connection: asyncpg.Connection
) -> None:
    async with Flowrun(through.dsn) as app:
        await asyncio.gather(*(app.job("echo", {"value": 0}).dispatch() for _ in range(5)))
        idle = through.proxy.that_said(b"flowrun")
        for one in idle:
            one.silent = True
        run = await asyncio.wait_for(app.job("echo", {"value": 1}).dispatch(), 30)
        assert await connection.fetchval("select count(*) from flowrun.jobs where id = $1", run.id) == 1


async def test_a_wait_whose_task_is_cancelled_on_a_silent_link_ends(through: Through) -> None:
    """asyncpg would wait for the server to answer that it has cancelled."""
    async with Flowrun(through.dsn) as app:
        run = await app.job("echo", {"value": 0}).dispatch()
        for one in through.proxy.links:
            one.silent = True
        task = asyncio.create_task(run.status())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)


@pytest.mark.parametrize("kind", ["job", "flow", "large", "key"])
async def test_a_dispatch_whose_answer_was_lost_is_sent_again_with_the_same_ids(
    through: Through, connection: asyncpg.Connection, until: Until, kind: str
) -> None:
    """The commit is done, the answer is not: neither lost nor done twice."""
    async with Flowrun(through.dsn) as app:
        # Statements are prepared now: what is sent below is done by one message, whose answer will be lost.
        await app.job("echo", {"value": 0}).dispatch()
        await app.chain(app.job("echo", {"value": 0})).dispatch()
        await connection.execute("truncate flowrun.flows, flowrun.jobs, flowrun.edges, flowrun.blocked, flowrun.ready")
        through.proxy.deaf = True
        spec = {
            "job": lambda: app.job("echo", {"value": 1}),
            "flow": lambda: app.chain(*(app.job("echo", {"value": n}) for n in range(3))),
            "large": lambda: app.group(*(app.job("echo", {"value": n}) for n in range(600))),
            "key": lambda: app.job("echo", {"value": 1}, key="one"),
        }[kind]()
        dispatch = asyncio.create_task(spec.dispatch())
        if kind in ("job", "flow"):
            await until(lambda: count(connection))
        else:
            await until(lambda: sum(one.swallowed for one in through.proxy.links))
        through.proxy.deaf = False
        through.proxy.cut()
        run = await asyncio.wait_for(dispatch, 60)
        assert await connection.fetchval("select count(*) from flowrun.jobs where id = $1", run.id) == 1
        expected = {"job": 1, "flow": 4, "large": 601, "key": 1}[kind]
        assert await count(connection) == expected
        assert not getattr(run, "duplicate", False)


async def count(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select count(*) from flowrun.jobs"))


async def test_a_full_pool_says_so(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WAIT", 0.3)
    async with Flowrun(dsn, pool_size=2) as app:
        async with app.client.database.acquire(), app.client.database.acquire():
            with pytest.raises(
                PoolExhausted, match="all 2 connections .* none came free within 0 s.*pool_size"
            ) as error:
                await app.job("echo", {"value": 1}).dispatch()
            assert isinstance(error.value, TimeoutError)
        await app.job("echo", {"value": 1}).dispatch()


async def test_what_a_handler_raises_is_kept_when_its_transaction_breaks(
    dsn: str, connection: asyncpg.Connection
) -> None:
    app = Flowrun(dsn, lease=2.0, poll=1.0)

    @app.handler(attempts=2)
    async def break_it(job: Job) -> str:
        if job.attempt > 1:
            return "well"
        async with job.transaction() as tx:
            pid = await tx.connection.fetchval("select pg_backend_pid()")
            await connection.execute("select pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.2)
            raise KeyError("its own")

    async with app.worker(concurrency=2):
        run = await break_it.job().options(backoff=backoff.constant(0.0)).dispatch()
        assert await run.result(timeout=20) == "well"
        assert [attempt.error_type for attempt in await run.attempts()] == ["KeyError"]


async def test_a_worker_leaves_in_time_though_its_links_are_silent(
    dsn: str, through: Through, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops it counts the seconds: a silent link must not cost all of the patience there is."""
    monkeypatch.setattr(link, "PATIENCE", 100.0)
    app = make(through.dsn)
    async with app:
        async with app.worker(concurrency=2):
            assert await (await app.job("echo", {"value": 1}).dispatch()).result(timeout=20) == 1
            for one in through.proxy.links:
                one.silent = True
            begun = time.monotonic()
        assert time.monotonic() - begun < 40
        assert await connection.fetchval("select count(*) from flowrun.workers") == 0, "and it has signed off"


async def test_a_wake_that_comes_while_a_claim_is_answered_is_not_forgotten(
    dsn: str, through: Through, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is where claims go through a pooler, and notifications beside it."""
    monkeypatch.setattr(link, "PATIENCE", 100.0)
    app = make(through.dsn, listen_dsn=through.dsn)
    async with app.worker(concurrency=8), Flowrun(dsn) as other:
        assert await (await other.job("echo", {"value": 1}).dispatch()).result(timeout=40) == 1
        [claims] = through.proxy.that_said(*SAID["claim"])
        [beats] = through.proxy.that_said(*SAID["heartbeat"])

        def heard() -> int:
            return beats.answers.count(app.client.channels.queue("default").encode())

        before, claims.held = heard(), True
        first = await other.job("echo", {"value": 2}).dispatch()
        await until(lambda: heard() > before)
        await asyncio.sleep(0.3)  # the claim that it brings about takes the first, and its answer waits
        second = await other.job("echo", {"value": 3}).dispatch()
        await until(lambda: heard() > before + 1)
        await asyncio.sleep(0.1)
        claims.held = False
        assert await first.result(timeout=15) == 2
        assert await second.result(timeout=15) == 3
