"""Schedules: what is dispatched again and again, and what a tick does. Time is moved by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, InvalidFlow, Job, NotFound, NotPossible
from flowrun.client.doctor import examine
from flowrun.client.runs import FlowRun

Until = Callable[..., Awaitable[None]]
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


class Clock:
    """What time it is for the schedules of an app."""

    def __init__(self, app: Flowrun) -> None:
        self.now = NOON
        self._app = app
        app.client.clock = lambda: self.now

    def to(self, moment: datetime) -> None:
        self.now = moment
        self._app.client.notifier.schedules_changed()

    def go(self, seconds: float) -> None:
        self.to(self.now + timedelta(seconds=seconds))


@pytest.fixture
def app(dsn: str) -> Flowrun:
    """Heartbeats come often: they are what notices that nobody told."""
    return Flowrun(dsn, lease=2.0)


@pytest.fixture
def clock(app: Flowrun) -> Clock:
    return Clock(app)


class Runs:
    """Runs that last until they are let go, and what they know of their ticks."""

    def __init__(self, app: Flowrun) -> None:
        self.begun: list[datetime] = []
        self.open = 0
        self.most = 0
        self.gates: list[asyncio.Event] = []
        self.stubborn = False

        @app.handler(attempts=1)
        async def work(job: Job, name: str = "") -> str:
            assert job.scheduled_for is not None
            self.begun.append(job.scheduled_for)
            self.open += 1
            self.most = max(self.most, self.open)
            gate = asyncio.Event()
            self.gates.append(gate)
            try:
                await gate.wait()
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):
                    while self.stubborn:
                        await asyncio.sleep(0.01)
                raise
            finally:
                self.open -= 1
            return job.scheduled_for.isoformat()

        self.work = work
        self._app = app

    def spec(self, kind: str) -> Any:
        if kind == "job":
            return self.work.job()
        flow = self._app.flow("nightly")
        first = flow.add(self._app.job("first"), name="first")
        flow.add(self.work.job(name="second"), after=first, name="second")
        return flow

    def let_go(self) -> None:
        for gate in self.gates:
            gate.set()

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.begun) == count


@pytest.fixture
def runs(app: Flowrun) -> Runs:
    @app.handler
    async def first() -> None: ...

    return Runs(app)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def test_a_schedule_is_written_changed_and_removed(app: Flowrun, clock: Clock, runs: Runs) -> None:
    async with app:
        schedules = app.schedules
        assert await schedules.put("tick", every=15.0, spec=runs.work.job(name="a"), overlap="skip", catchup="last")
        assert await schedules.put("nightly", "0 3 * * *", runs.spec("flow"), timezone="Europe/Paris")
        clock.now = at(7)
        assert not await schedules.put("tick", every=15.0, spec=runs.work.job(name="a"), overlap="skip", catchup="last")
        assert not await schedules.put("nightly", " 0 3  * * * ", runs.spec("flow"), timezone="Europe/Paris")
        tick, nightly = await schedules.get("tick"), await schedules.get("nightly")
        assert (tick.every, tick.cron, tick.rule, tick.kind, tick.name) == (15.0, None, "every 15 s", "job", "work")
        assert (tick.overlap, tick.catchup, tick.paused, tick.next_at) == ("skip", "last", False, at(15))
        # The clocks are changed that night: 3:00 in Paris is 1:00 in UTC.
        assert (nightly.kind, nightly.name) == ("flow", "nightly")
        assert nightly.next_at == datetime(2026, 3, 29, 1, tzinfo=UTC)
        assert nightly.rule == "At 03:00 every day, Europe/Paris"
        assert (nightly.last_at, nightly.last_id, nightly.dispatched, nightly.running) == (None, None, 0, False)
        # Another rule moves the next tick, another job does not.
        assert await schedules.put("tick", every=15.0, spec=runs.work.job(name="b"))
        assert (await schedules.get("tick")).next_at == at(15)
        assert await schedules.put("tick", every=10.0, spec=runs.work.job(name="b"), start=at(2))
        assert (await schedules.get("tick")).next_at == at(12)
        assert [one.key for one in await schedules.list()] == ["nightly", "tick"]
        assert await schedules.exists("tick")
        assert await schedules.remove("tick", actor="ann")
        assert not await schedules.remove("tick")
        assert not await schedules.exists("tick")
        with pytest.raises(NotFound, match="'tick'"):
            await schedules.get("tick")
        with pytest.raises(NotFound, match="'tick'"):
            await schedules.pause("tick")
        assert await schedules.clear() == 1
        assert await schedules.list() == []


async def test_jobs_and_flows_know_their_tick(app: Flowrun, clock: Clock, runs: Runs, until: Until) -> None:
    async with app.worker():
        await app.schedules.put("one", "0 3 * * *", runs.work.job().options(tags=["t"]), timezone="Europe/Paris")
        await app.schedules.put("all", every=3600.0, spec=runs.spec("flow"), start=datetime(2026, 3, 30, tzinfo=UTC))
        ticks = [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 30, 1, tzinfo=UTC)]
        for number, tick in enumerate(ticks):
            clock.to(tick + timedelta(milliseconds=5))
            await until(runs.has(number * 2 + 1) if number == 0 else runs.has(3))
            runs.let_go()
        assert runs.begun == [ticks[0], ticks[1], ticks[1]]
        await until(lambda: runs.open == 0)
        jobs = [job for job in await app.jobs.list() if job.flow_id is None]
        assert [(job.schedule, job.scheduled_for) for job in jobs] == [("one", tick) for tick in reversed(ticks)]
        assert len({job.id for job in jobs}) == 2
        status = await app.schedules.get("one")
        assert (status.last_at, status.last_id, status.dispatched) == (ticks[1], jobs[0].id, 2)
        assert status.next_at == datetime(2026, 3, 31, 1, tzinfo=UTC)
        (summary,) = await app.flows.list()
        flow = await app.get_flow(summary.id)
        assert await flow.result(timeout=20) == ticks[1].isoformat()
        assert {(job.schedule, job.scheduled_for) for job in (await flow.status()).nodes.values()} == {
            ("all", ticks[1])
        }
        clock.to(at(86_400 * 1.5))
        assert (await app.get_job(jobs[0].id)).type == "work"
        plain = await app.job("first").dispatch()
        assert (await plain.status()).schedule is None


@pytest.mark.parametrize("kind", ["job", "flow"])
async def test_skip(app: Flowrun, clock: Clock, runs: Runs, until: Until, kind: str) -> None:
    async def skipped(count: int) -> bool:
        return (await app.schedules.get("s")).skipped == count

    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.spec(kind), overlap="skip")
        clock.go(60)
        await until(runs.has(1))
        for number in (1, 2):
            clock.go(60)
            await until(lambda number=number: skipped(number))
        runs.let_go()
        await until(lambda: _ended(app))
        clock.go(60)
        await until(runs.has(2))
        runs.let_go()
    assert runs.begun == [at(60), at(240)]
    assert runs.most == 1


@pytest.mark.parametrize("kind", ["job", "flow"])
async def test_queue(app: Flowrun, clock: Clock, runs: Runs, until: Until, kind: str) -> None:
    async def waits() -> bool:
        return (await app.schedules.get("s")).waits

    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.spec(kind), overlap="queue")
        clock.go(60)
        await until(runs.has(1))
        clock.go(60)
        await until(waits)
        clock.go(120)
        for number in range(4):
            await until(runs.has(number + 1))
            assert runs.open == 1
            runs.gates[number].set()
        await until(lambda: _ended(app))
        status = await app.schedules.get("s")
        assert (status.waits, status.dispatched, status.skipped, status.next_at) == (False, 4, 0, at(300))
    assert runs.begun == [at(60), at(120), at(180), at(240)]
    assert runs.most == 1


@pytest.mark.parametrize("kind", ["job", "flow"])
async def test_cancel(app: Flowrun, clock: Clock, runs: Runs, until: Until, kind: str) -> None:
    async def waits() -> bool:
        return (await app.schedules.get("s")).waits

    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.spec(kind), overlap="cancel")
        clock.go(60)
        await until(runs.has(1))
        clock.go(60)
        await until(runs.has(2))
        # A handler that takes its time to stop is waited for; of the ticks that come meanwhile the last counts.
        runs.stubborn = True
        clock.go(60)
        await until(waits)
        clock.go(60)
        assert len(runs.begun) == 2
        runs.stubborn = False
        await until(runs.has(3))
        runs.let_go()
        await until(lambda: _ended(app))
        status = await app.schedules.get("s")
        states = [job.state for job in reversed(await app.jobs.list(type="work"))]
    assert runs.begun == [at(60), at(120), at(240)]
    assert runs.most == 1
    assert states == ["cancelled", "cancelled", "succeeded"]
    assert (status.dispatched, status.skipped, status.waits) == (3, 1, False)


async def test_allow(app: Flowrun, clock: Clock, runs: Runs, until: Until) -> None:
    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.work.job())
        for number in range(3):
            clock.go(60)
            await until(runs.has(number + 1))
        assert runs.open == 3
        runs.let_go()


async def test_a_run_that_is_not_stored_any_more_holds_up_nothing(app, clock, runs, until, connection) -> None:
    async def waits() -> bool:
        return (await app.schedules.get("s")).waits

    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=app.job("nobody"), overlap="queue")
        clock.go(60)
        await until(lambda: app.jobs.list(type="nobody"))
        clock.go(60)
        await until(waits)
        await connection.execute("delete from flowrun.ready; delete from flowrun.jobs where type = 'nobody'")

        async def following() -> bool:
            return [job.scheduled_for for job in await app.jobs.list(type="nobody")] == [at(120)]

        await until(following)


@pytest.mark.parametrize(
    ("catchup", "ticks"), [("none", []), ("last", [at(3600 * 5)]), ("all", [at(3600 * n) for n in range(1, 6)])]
)
async def test_after_a_downtime(app: Flowrun, clock: Clock, runs: Runs, until: Until, catchup: Any, ticks: Any) -> None:
    async with app:
        await app.schedules.put("s", every=3600.0, spec=runs.work.job(), catchup=catchup)
        clock.go(3600 * 5.5)
        async with app.worker():
            await until(runs.has(len(ticks)))

            async def moved() -> bool:
                return (await app.schedules.get("s")).next_at == at(3600 * 6)

            await until(moved)
            clock.go(1800)
            await until(runs.has(len(ticks) + 1))
            runs.let_go()
    assert sorted(runs.begun) == [*ticks, at(3600 * 6)]


async def test_a_clock_that_is_set_back_makes_no_tick_come_twice(app, clock, runs, until, connection) -> None:
    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.work.job())
        clock.go(60)
        await until(runs.has(1))
        clock.to(at(-3600))
        assert await app.schedules.put("s", every=30.0, spec=runs.work.job())
        assert (await app.schedules.get("s")).next_at == at(90)
        await app.schedules.pause("s")
        await app.schedules.resume("s")
        assert (await app.schedules.get("s")).next_at == at(90)
        # Nothing is left of what it knew: the tick has a key.
        await app.schedules.remove("s")
        await app.schedules.put("s", every=60.0, spec=runs.work.job(), start=at(60))
        clock.to(at(60))

        async def taken() -> bool:
            return (await app.schedules.get("s")).last_at == at(60)

        await until(taken)
        assert (await app.schedules.get("s")).dispatched == 0
        clock.go(60)
        await until(runs.has(2))
        runs.let_go()
    assert runs.begun == [at(60), at(120)]
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 2


async def test_pause_resume_and_trigger(app: Flowrun, clock: Clock, runs: Runs, until: Until) -> None:
    async with app.worker():
        await app.schedules.put("s", every=60.0, spec=runs.spec("flow"), overlap="skip", catchup="all")
        await app.schedules.put("other", every=60.0, spec=app.job("first"))
        assert await app.schedules.pause("s", actor="ann", reason="quiet")
        assert not await app.schedules.pause("s")
        clock.go(600)

        async def others() -> bool:
            return (await app.schedules.get("other")).next_at == at(660)

        await until(others)
        assert runs.begun == []
        run = await app.schedules.trigger("s", actor="ann", reason="by hand")
        assert isinstance(run, FlowRun)
        await until(runs.has(1))
        assert runs.begun == [at(600)]
        with pytest.raises(NotPossible, match="has not ended"):
            await app.schedules.trigger("s")
        with pytest.raises(NotPossible, match="has not ended; cancel it"):
            await app.schedules.trigger("s", overlap="cancel")
        second = await app.schedules.trigger("s", overlap="allow")
        await until(runs.has(2))
        runs.let_go()
        assert await run.result(timeout=20) == await second.result(timeout=20) == at(600).isoformat()
        (entry,) = await run.audit()
        assert (entry.verb, entry.actor, entry.reason, entry.detail) == ("trigger", "ann", "by hand", {"schedule": "s"})
        # What was due while it was paused is not made up for.
        assert await app.schedules.resume("s")
        assert not await app.schedules.resume("s")
        assert (await app.schedules.get("s")).next_at == at(660)
        clock.go(60)
        await until(runs.has(3))
        runs.let_go()
        await until(lambda: _ended(app))
    assert runs.begun[-1] == at(660)


async def test_a_job_that_waits_gives_way_to_a_trigger(app: Flowrun, clock: Clock, runs: Runs) -> None:
    async with app:
        await app.schedules.put("s", every=60.0, spec=app.job("nobody"), overlap="cancel")
        first, second = await app.schedules.trigger("s"), await app.schedules.trigger("s")
        assert (await first.status()).state == "cancelled"
        assert (await second.status()).state == "ready"


async def test_cron_on_a_function_or_a_handler(app: Flowrun, clock: Clock, until: Until, connection) -> None:
    came: list[tuple[str, Any]] = []

    @app.cron("*/15 * * * * *")
    async def beat(job: Job) -> None:
        came.append((job.type, job.scheduled_for))

    @app.cron("0 3 * * *", key="night", timezone="Europe/Paris", overlap="skip", catchup="last")
    @app.handler("report", queue="reports")
    def report(job: Job, day: str = "today") -> str:
        came.append((job.queue, day))
        return day

    assert report.type == "report"
    async with app.worker():
        assert [one.key for one in await app.schedules.list()] == ["beat", "night"]
        clock.go(15)
        await until(lambda: came == [("beat", at(15))])
        await app.schedules.pause("beat")
        clock.to(datetime(2026, 3, 29, 1, tzinfo=UTC))
        await until(lambda: came[1:] == [("reports", "today")])
    # Another start changes nothing, but for what was changed in the program.
    before = await connection.fetch("select * from flowrun.schedules order by key")
    async with app.worker():
        assert await connection.fetch("select * from flowrun.schedules order by key") == before
    again = Flowrun(app.dsn)
    again.client.clock = app.client.clock

    @again.cron("30 * * * * *")
    async def beat(job: Job) -> None: ...  # noqa: F811

    async with again.worker():
        status = await again.schedules.get("beat")
        assert (status.cron, status.paused) == ("30 * * * * *", True)
        assert await again.schedules.exists("night")


def test_what_cron_refuses(app: Flowrun) -> None:
    with pytest.raises(ConfigurationError, match="schedule 'needy': its handler needs size"):

        @app.cron("* * * * *")
        async def needy(size: int) -> None: ...

    with pytest.raises(ConfigurationError, match="schedule 'bad'.*bad hour"):

        @app.cron("* 25 * * *")
        async def bad() -> None: ...

    @app.cron("* * * * *")
    async def twice() -> None: ...

    with pytest.raises(ConfigurationError, match="schedule 'twice' is declared twice"):
        app.cron("5 * * * *")(twice)
    with pytest.raises(ConfigurationError, match="overlap= must be one of"):
        app.cron("5 * * * *", key="x", overlap="never")(twice)  # type: ignore[arg-type]


async def test_what_put_refuses(app: Flowrun, runs: Runs, connection) -> None:
    @app.handler
    async def sized(size: int) -> None: ...

    put = app.schedules.put
    cyclic = app.flow("cyclic")
    one = cyclic.add(sized.job(size=1), name="a", after=["b"])
    cyclic.add(sized.job(size=1), name="b", after=one)
    async with app:
        for words, error, said in (
            ({"cron": "* * * * *"}, ConfigurationError, "'x' needs spec="),
            ({"spec": sized.job(size=1)}, ConfigurationError, "a cron rule or every="),
            ({"cron": "0 0 30 2 *", "spec": sized.job(size=1)}, ConfigurationError, "'x'.*never comes"),
            ({"every": 5.0, "spec": sized.job(size="ü")}, InvalidArguments, "size"),
            ({"every": 5.0, "spec": sized}, ConfigurationError, "takes handler.job"),
            ({"every": 5.0, "spec": cyclic}, InvalidFlow, "cycle"),
            ({"every": 5.0, "spec": sized.job(size=1).options(key="k")}, ConfigurationError, "key="),
            (
                {"every": 5.0, "spec": sized.job(size=1), "catchup": "some"},
                ConfigurationError,
                "catchup= must be one of",
            ),
        ):
            with pytest.raises(error, match=said):
                await put("x", **words)
        for key in ("", " x", "x\n", "x" * 201, 5):
            with pytest.raises(ConfigurationError, match="key of a schedule"):
                await put(key, every=5.0, spec=sized.job(size=1))
    assert await connection.fetchval("select count(*) from flowrun.schedules") == 0


async def test_a_schedule_that_cannot_be_read_stops_no_other(app, clock, runs, until, connection, caplog) -> None:
    async with app.worker():
        for key in ("a", "broken", "c"):
            await app.schedules.put(key, "* * * * *", runs.work.job(), catchup="all")
        await connection.execute("update flowrun.schedules set timezone = 'Nowhere/Atlantis' where key = 'broken'")
        with caplog.at_level(logging.CRITICAL, "flowrun.worker"):
            clock.go(60)
            await until(runs.has(2))
            clock.go(60)
            await until(runs.has(4))
        runs.let_go()
        assert await connection.fetchval("select dispatched from flowrun.schedules where key = 'broken'") == 0


async def _ended(app: Flowrun) -> bool:
    rows = await app.client.database.fetch("open_runs", [one.id for one in await app.jobs.list()])
    flows = await app.flows.list(state="running")
    return not rows and not flows


async def test_what_explain_and_the_doctor_say(app: Flowrun, clock: Clock, connection) -> None:
    async def said() -> list[str]:
        return [one.found for one in await examine(app.dsn, app.settings) if one.check == "schedules"]

    async with app:
        await app.schedules.put("s", every=60.0, spec=app.job("nobody"), overlap="queue")
        assert (await app.schedules.explain("s")).reasons[-1] == "no worker lives that would take a tick"
        await connection.execute("update flowrun.schedules set next_at = now() - '5 minutes'::interval")
        (finding,) = await said()
        assert "a tick of schedule 's' is due since" in finding
        await app.schedules.pause("s")
        assert (await app.schedules.explain("s")).state == "paused"
        assert await said() == ["schedule 's' is paused"]
        await app.schedules.put("s", every=60.0, spec=app.job("nobody"), end=at(80), start=at(-60))
        await app.schedules.resume("s")
        assert (await app.schedules.explain("s")).state == "scheduled"
        clock.now = at(90)
        await app.schedules.put("s", every=50.0, spec=app.job("nobody"), end=at(80), start=at(-60))
        assert (await app.schedules.explain("s")).state == "over"
        assert await said() == []
