"""Limits, rates, sequences, fair shares, pauses and allotments, each for itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from flowrun import ConfigurationError, Flowrun, Job, JobSpec, backoff
from flowrun.core import lanes


class Turnstile:
    """Handlers go through it and wait inside until they are let out."""

    def __init__(self) -> None:
        self.inside: list[object] = []
        self.most = 0
        self.order: list[object] = []
        self.open = asyncio.Event()

    async def go(self, who: object) -> None:
        self.inside.append(who)
        self.order.append(who)
        self.most = max(self.most, len(self.inside))
        await self.open.wait()
        await asyncio.sleep(0.001)
        self.inside.remove(who)


@pytest.fixture
def gate() -> Turnstile:
    return Turnstile()


@pytest.fixture
def go(app: Flowrun, gate: Turnstile) -> Callable[..., JobSpec[None]]:
    @app.handler("go")
    async def handler(who: object = None) -> None:
        await gate.go(who)

    def make(who: object = None, **options: object) -> JobSpec[None]:
        return app.job("go", {"who": who}, **options)

    return make


async def ended(runs, timeout: float = 20) -> None:
    for run in runs:
        await run.wait(timeout=timeout)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("option", [{"limit": ("tenant", 3)}, {"limit": 3}, {"queue": "narrow"}])
async def test_at_most_so_many_at_once(app, go, gate, until, option, workers) -> None:
    app.queue("narrow", concurrency=3)
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(app.worker(concurrency=10, queues=["default", "narrow"]))
        runs = await app.dispatch_many([go(n, **option) for n in range(20)])
        free = await go("free").dispatch()
        await until(lambda: len(gate.inside) == 4)
        assert sorted(map(str, gate.inside)) == ["0", "1", "2", "free"]
        gate.open.set()
        await ended([*runs, free])
    assert gate.most == 4
    assert len(gate.order) == 21


async def test_a_key_is_one_whatever_the_queue_and_the_type(app, go, gate, until) -> None:
    @app.handler("other", queue="elsewhere")
    async def other(who: object) -> None:
        await gate.go(who)

    async with app.worker(concurrency=10):
        runs = [await go(n, limit=("k", 2)).dispatch() for n in range(3)]
        runs += [await other.job(who=n).options(limit=("k", 2)).dispatch() for n in range(3)]
        runs.append(await go("not k", limit=("K", 2)).dispatch())
        await until(lambda: len(gate.inside) == 3)
        assert "not k" in gate.inside
        gate.open.set()
        await ended(runs)
    assert gate.most == 3


async def test_limit_of_the_key_and_of_the_queue_hold_both(app, go, gate, until) -> None:
    app.queue("narrow", concurrency=3)
    async with app.worker(concurrency=20, queues=["default", "narrow"]):
        runs = [await go(f"a{n}", limit=("a", 2), queue="narrow").dispatch() for n in range(4)]
        runs += [await go(f"b{n}", limit=("b", 2), queue="narrow").dispatch() for n in range(4)]
        runs += [await go(f"c{n}", queue="narrow").dispatch() for n in range(4)]
        runs += [await go(f"d{n}", limit=("a", 2)).dispatch() for n in range(4)]
        await until(lambda: len(gate.inside) >= 3)
        gate.open.set()
        most = 0
        for run in runs:
            await run.wait(timeout=20)
            inside = [str(who) for who in gate.inside]
            assert sum(who[0] in "ad" for who in inside) <= 2
            most = max(most, sum(who[0] in "abc" for who in inside))
        assert most <= 3


async def test_in_a_flow_and_when_tried_again(app, gate) -> None:
    seen = Counter()

    @app.handler(limit=2, attempts=3, backoff=backoff.constant(0.01))
    async def flaky(n: int) -> int:
        seen["now"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        await asyncio.sleep(0.002)
        seen["now"] -= 1
        seen[f"attempt {n}"] += 1
        if seen[f"attempt {n}"] < 2:
            raise ValueError("again")
        return n

    flow = app.flow("f")
    start = flow.add(app.job("start"), name="start")
    many = flow.map(flaky, over=start.result)

    @app.handler("start")
    async def begin() -> list[int]:
        return list(range(12))

    del many
    async with app.worker(concurrency=8):
        run = await flow.dispatch()
        assert await run.result(timeout=20) == list(range(12))
    assert seen["most"] == 2


async def test_a_rate(app, go, gate, connection) -> None:
    app.queue("rated", rate=(5, 0.4))
    gate.open.set()
    async with app.worker(concurrency=50, queues=["rated"]):
        runs = await app.dispatch_many([go(n, queue="rated") for n in range(13)])
        await ended(runs)
        times = await connection.fetch("select started_at from flowrun.finished order by started_at")
    moments = [row[0].timestamp() for row in times]
    assert all(later - earlier >= 0.4 for earlier, later in zip(moments, moments[5:], strict=False))
    assert moments[-1] - moments[0] < 5


async def test_a_sequence_keeps_its_order_and_waits_for_a_retry(app) -> None:
    order: list[int] = []

    @app.handler(attempts=3, backoff=backoff.constant(0.15))
    async def step(n: int) -> None:
        order.append(n)
        if n == 2 and order.count(2) < 3:
            raise ValueError("again")
        if n == 4:
            raise ValueError("and again")

    async with app.worker(concurrency=8), app.worker(concurrency=8):
        runs = await app.dispatch_many([step.job(n=n).options(sequence="account 7") for n in range(7)])
        await ended(runs)
    assert order == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]


async def test_a_fair_share(app, go, gate) -> None:
    gate.open.set()
    async with app:
        runs = await app.dispatch_many([go(("big", n), fair_key="big") for n in range(200)])
        runs += await app.dispatch_many([go((f"small {t}", 0), fair_key=f"small {t}") for t in range(5)])
        async with app.worker(concurrency=2):
            await ended(runs)
    places = [place for place, who in enumerate(gate.order) if who[0] != "big"]
    assert len(places) == 5
    assert max(places) < 40
    assert [who[1] for who in gate.order if who[0] == "big"] == list(range(200))


async def test_pause_and_resume(app, go, gate, until) -> None:
    gate.open.set()
    async with app.worker(concurrency=4), app.worker(concurrency=4):
        await (await go("before").dispatch()).wait(timeout=10)
        assert await app.queues.pause("default")
        assert not await app.queues.pause("default")
        runs = await app.dispatch_many([go(n) for n in range(3)] + [go(n, limit=("k", 5)) for n in range(3)])
        (found,) = [queue for queue in await app.queues.list() if queue.name == "default"]
        assert (found.paused, found.ready, found.workers) == (True, 6, 2)
        assert "is paused" in str(await runs[0].explain())
        with pytest.raises(TimeoutError):
            await runs[0].wait(timeout=0.3)
        assert gate.order == ["before"]
        assert await app.queues.resume("default")
        await ended(runs)
    assert len(gate.order) == 7


async def test_a_flow_stands_still_while_its_queue_is_paused(app, go, gate) -> None:
    """Also what a settle would hand over."""
    first, again = asyncio.Event(), asyncio.Event()

    @app.handler
    async def start() -> None:
        first.set()
        await again.wait()

    gate.open.set()
    async with app.worker(concurrency=4):
        run = await app.chain(start.job(), go("next")).dispatch()
        await first.wait()
        await app.queues.pause("default")
        again.set()
        await run["start"].wait(timeout=10)
        with pytest.raises(TimeoutError):
            await run["go"].wait(timeout=0.3)
        await app.queues.resume("default")
        await run.result(timeout=10)


async def test_settings_changed_while_it_runs(app, go, gate, until) -> None:
    async with app.worker(concurrency=10):
        runs = await app.dispatch_many([go(n, limit=("k", 100)) for n in range(4)])
        await until(lambda: len(gate.inside) == 4)
        assert await app.queues.put("default", concurrency=5)
        assert not await app.queues.put("default", concurrency=5)
        runs += await app.dispatch_many([go(n) for n in range(10, 20)])
        await until(lambda: len(gate.inside) == 9)
        assert await app.queues.put("default", concurrency=7)
        await until(lambda: len(gate.inside) == 10)  # the worker's consumers; 6 of them count
        assert await app.queues.put("default")
        gate.open.set()
        await ended(runs)


async def test_a_limit_is_free_again_when_its_worker_was_given_up(dsn, connection, until) -> None:
    began: list[Job] = []
    app = Flowrun(dsn, lease=1.0)

    @app.handler(limit=1, timeout=30.0)
    async def hold(job: Job) -> int:
        if job.attempt == 1:
            began.append(job)
            await asyncio.sleep(30)
        return job.attempt

    async with app.worker(concurrency=2, grace=0.0), app.worker(concurrency=2, grace=0.0):
        runs = await app.dispatch_many([hold.job(), hold.job()])
        await until(lambda: len(began) == 1)
        assert "1 of 1 jobs of the limit of type 'hold' run already" in str(await runs[1].explain())
        holder = await connection.fetchval("select worker_id from flowrun.leases")
        # As if it had died: no heartbeat brings it back.
        await connection.execute("delete from flowrun.workers where id = $1", holder)
        assert await runs[0].result(timeout=10) == 2
        await until(lambda: len(began) == 2)
        assert await runs[1].cancel() == "requested"


async def test_an_allotment(app, go, gate, until) -> None:
    async with app.worker(concurrency=6, queues={"default": None, "billing": 2}):
        runs = await app.dispatch_many([go(f"b{n}", queue="billing") for n in range(10)])
        await until(lambda: len(gate.inside) == 2)
        runs += await app.dispatch_many([go(f"d{n}") for n in range(10)])
        runs += await app.dispatch_many([go(f"l{n}", queue="billing", limit=("k", 9)) for n in range(10)])
        await until(lambda: len(gate.inside) == 6)
        assert sum(who[0] != "d" for who in gate.inside) == 2
        gate.open.set()
        for run in runs:
            await run.wait(timeout=20)
            assert sum(who[0] != "d" for who in gate.inside) <= 2


async def test_who_starts_declares_but_resumes_nothing(app, go, gate) -> None:
    app.queue("mails", concurrency=2, rate=(10, 1.0), paused=True)
    async with app.worker(queues=["mails"]):
        (found,) = [queue for queue in await app.queues.list() if queue.name == "mails"]
        assert (found.concurrency, found.rate, found.paused, found.running) == (2, (10, 1.0), True, 0)
        await app.queues.resume("mails")
    app.queue("mails", concurrency=3, paused=True)
    async with app.worker(queues=["mails"]):
        (found,) = [queue for queue in await app.queues.list() if queue.name == "mails"]
        assert (found.concurrency, found.rate, found.paused) == (3, None, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit= must be a key and a whole number"),
        ({"limit": ("k", 0)}, "limit= must be a key and a whole number"),
        ({"limit": ("", 1)}, "limit= must be a key"),
        ({"limit": ("a\x1fb", 1)}, "limit= must be a key"),
        ({"limit": True}, "limit= must be a key"),
        ({"limit": "k"}, "limit= must be a key"),
        ({"fair_key": ""}, "fair_key= must be a text"),
        ({"sequence": "x" * 201}, "sequence= must be a text"),
        ({"sequence": "s", "limit": 2}, "exclude each other"),
    ],
)
async def test_bad_options(app, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with app:
            await app.job("go", **options).dispatch()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, "concurrency= must be"),
        ({"rate": (0, 1.0)}, "rate= must be"),
        ({"rate": (1, 0.0)}, "rate= must be"),
        ({"rate": (1, float("nan"))}, "rate= must be"),
        ({"rate": 5}, "rate= must be"),
        ({"paused": 1}, "paused= must be"),
    ],
)
def test_bad_queues(app, settings, message) -> None:
    with pytest.raises(ConfigurationError, match=f"queue 'mails': {message}"):
        app.queue("mails", **settings)
    with pytest.raises(ConfigurationError, match="flowrun's own"):
        app.queue("flowrun", concurrency=1)


@pytest.mark.parametrize("most", [0, 11, True, "2"])
async def test_bad_allotments(app, most) -> None:
    with pytest.raises(ConfigurationError, match="can have 1 to 10"):
        async with app.worker(concurrency=10, queues={"a": most}):
            pass


def test_names_of_lanes() -> None:
    assert lanes.place("q", "t", {}) == "q"
    for options in ({"limit": ("k", 3)}, {"limit": 3}, {"fair_key": "f"}, {"sequence": "s"}):
        place = lanes.place("q", "t", options)
        assert lanes.is_lane(place)
        assert lanes.queue_of(place) == "q"
    assert len({lanes.place("q", "t", {"limit": ("t", 3)}), lanes.place("q", "t", {"limit": 3})}) == 2


def test_options_of_a_queue_count_from_when_they_are_said(app) -> None:
    """Also for handlers whose jobs have been dispatched before."""

    @app.handler
    async def send() -> None: ...

    def planned(spec) -> tuple[int, str | None]:
        (row,) = app.client.plan_jobs([spec]).jobs
        return row.priority, row.options

    assert planned(send.job()) == planned(send.job()) == (5, None)
    app.queue("default", priority=8, attempts=1)
    assert planned(send.job()) == planned(send.job()) == (8, '{"attempts":1}')
    assert planned(send.job().options(priority=2)) == (2, '{"attempts":1}')
    assert planned(app.job("send")) == (8, '{"attempts":1}')
    assert planned(send.job()) == (8, '{"attempts":1}')


async def test_options_of_a_queue_are_the_last_to_count(app, connection) -> None:
    """Precedence: dispatch, then flow, then handler, then queue."""
    app.queue("mail", attempts=1, priority=8, timeout=0.05, tags=["mail"], optional=True)
    app.queue("other", priority=2)

    @app.handler(queue="mail", priority=7)
    async def send(job: Job, seconds: float = 0.0) -> list[object]:
        await asyncio.sleep(seconds)
        return [job.priority, job.attempts, list(job.tags)]

    async with app, app.worker(queues=["mail", "other"]):
        assert await (await send.dispatch()).result(timeout=20) == [7, 1, ["mail"]]
        spec = send.job().options(attempts=4, priority=1, tags=["own"])
        assert await (await spec.dispatch()).result(timeout=20) == [1, 4, ["own"]]
        assert await (await send.job().options(queue="other").dispatch()).result(timeout=20) == [7, 3, []]
        flow = app.flow("letters", attempts=2, backoff=backoff.constant(0.0))
        flow.add(send.job(), name="first")
        slow = flow.add(send.job(seconds=30.0), name="slow")
        flow.add(send.job(), after=slow, name="after one that may fail")
        status = await (await flow.dispatch()).wait(timeout=20)
        assert [job.state for job in status.nodes.values()] == ["succeeded", "failed", "succeeded"]
        assert (status["slow"].optional, status["slow"].attempt, status.state) == (True, 2, "succeeded")

        by_name = await app.job("elsewhere", queue="mail").dispatch()  # what its handler says is not known here
        assert (await by_name.status()).priority == 5
    with pytest.raises(ConfigurationError, match="queue 'mail': key= is no option of a queue"):
        app.queue("mail", key="k")
    with pytest.raises(ConfigurationError, match="queue 'mail': attempts= must be"):
        app.queue("mail", attempts=0)
