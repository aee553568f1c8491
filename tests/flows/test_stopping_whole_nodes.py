"""Maps and inner flows that lose a race, or are cancelled: nothing of them goes on, and nothing outlives them."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from flowrun import Job, race


@pytest.fixture
def hang(app, ran):
    """Runs until it is interrupted, if it ever begins; it would be tried again."""

    @app.handler(attempts=3)
    async def hang(name: str = "hang") -> None:
        ran.append(f"{name} begins")
        try:
            await asyncio.sleep(60)
        finally:
            ran.append(f"{name} ends")

    return hang


@pytest.fixture
def times(app, connection):
    """When each job and inner flow of a flow ended."""

    async def times(run) -> dict[str, datetime]:
        rows = await connection.fetch(
            "select j.name, f.finished_at from flowrun.jobs j join flowrun.finished f using (id)"
            " join flowrun.flows fl on fl.id = j.flow_id where fl.root_id = $1 and j.kind not in (2, 6)",
            run.id,
        )
        return {row["name"]: row["finished_at"] for row in rows}

    return times


@pytest.mark.parametrize("running", [0, 2, 5])
async def test_a_map_that_loses_a_race_stops_its_items(app, step, ran, hang, until, states, running) -> None:
    flow = app.flow("f")
    mapped = flow.map(hang, over=list("abcde"), name="m")
    gate = flow.wait_for("go")
    flow.add(step("winner"), after=race(mapped, gate), name="winner")
    flow.add(step("after"), after=mapped.finished, name="after")
    flow.add(step("failed"), after=mapped.failed, name="failed")
    async with app:
        run = await flow.dispatch()
        async with app.worker(concurrency=running or 1, queues=None if running else ["other"]):
            await until(lambda: len(ran) == running)
            await asyncio.sleep(0)
            if not running:

                async def expanded() -> bool:
                    return "m[4]" in (await run.status()).nodes

                await until(expanded)
            await run.signal("go")
            if not running:
                # Nothing of it runs: it is cancelled in the commit that decides the race.
                status = await run.status()
                assert status["m"].state == "cancelled"
                assert {status[f"m[{n}]"].state for n in range(5)} == {"cancelled"}
        async with app.worker(concurrency=8):
            status = await run.wait(timeout=20)
    found = {name: job.state for name, job in status.nodes.items()}
    assert status.state == "succeeded"
    assert {found["m"], *(found[f"m[{n}]"] for n in range(5))} == {"cancelled"}
    assert (found["winner"], found["after"], found["failed"]) == ("succeeded", "succeeded", "skipped")
    assert "race" in (status["m"].error or "")
    assert sum(name.endswith("begins") for name in ran) == sum(name.endswith(" ends") for name in ran) == running


@pytest.mark.parametrize("whole", [True, False])
async def test_a_map_that_is_cancelled_stops_its_items_and_ends_after_them(
    app, step, ran, hang, until, states, times, whole
) -> None:
    flow = app.flow("f")
    mapped = flow.map(hang, over=list("abc"), name="m")
    flow.add(step("after"), after=mapped.finished, name="after")
    async with app, app.worker(concurrency=2):
        run = await flow.dispatch()
        await until(lambda: len(ran) == 2)
        assert await (run.cancel() if whole else run["m"].cancel()) == "requested"
        found = await states(run)
        ended = await times(run)
        assert (await run.status()).state == "cancelled"
    assert {found[name] for name in ("m", "m[0]", "m[1]", "m[2]")} == {"cancelled"}
    assert found["after"] == ("cancelled" if whole else "succeeded")
    assert all(ended["m"] >= ended[f"m[{n}]"] for n in range(3))
    assert [name for name in ran if name.endswith("begins")] == ["a begins", "b begins"]


async def test_a_map_that_is_cancelled_while_it_becomes_its_items(app, hang, ran, connection, until) -> None:
    """It was claimed when it was asked to stop: it does not become items any more."""
    flow = app.flow("f")
    flow.map(hang, over=list("abc"), name="m")
    lock = connection.transaction()
    await lock.start()
    async with app:
        run = await flow.dispatch()
        await connection.execute("select from flowrun.flows where id = $1 for update", run.id)
        async with app.worker(concurrency=2):

            async def claimed() -> bool:
                return bool(await connection.fetchval("select exists (select from flowrun.leases)"))

            await until(claimed)
            cancelling = asyncio.create_task(run["m"].cancel())
            await until(lambda: cancelling.done() or len(asyncio.all_tasks()) > 1)
            await connection.execute(
                "insert into flowrun.cancels (id, harmless) select id, false from flowrun.jobs where name = 'm'"
            )
            await lock.commit()
            await cancelling
            status = await run.wait(timeout=20)
    assert status["m"].state == "cancelled"
    assert "m[0]" not in status.nodes or status["m[0]"].state == "cancelled"
    assert ran == []


@pytest.mark.parametrize("nodes", [0, 1, 3])
@pytest.mark.parametrize("deep", [False, True])
async def test_an_inner_flow_that_loses_a_race_before_it_begins_is_cancelled_at_once(
    app, step, ran, until, states, connection, nodes, deep
) -> None:
    flow, inner = app.flow("f"), app.flow("inner")
    before = flow.wait_for("before")
    quick = flow.wait_for("quick")
    place = inner
    if deep:
        place = app.flow("deep")
        inner.add(place)
    for number in range(nodes):
        place.add(step(f"x{number}"), name=f"x{number}")
    loser = flow.add(inner, after=before)
    flow.add(step("winner"), after=race(loser, quick), name="winner")
    flow.add(step("after"), after=loser.finished, name="after")
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.signal("quick")

        async def decided() -> bool:
            return (await run.status())["winner"].state == "succeeded"

        await until(decided)
        ended = await connection.fetch(
            "select j.name, f.outcome from flowrun.jobs j join flowrun.finished f using (id) where j.kind in (0, 1)"
        )
        assert dict(ended).items() >= dict.fromkeys(["inner", *(["inner/deep"] if deep else [])], 3).items()
        assert (await run.status()).state == "running"
        await run.signal("before")
        status = await run.wait(timeout=10)
    assert status.state == "succeeded"
    prefix = "inner/deep/" if deep else "inner/"
    assert {status[f"{prefix}x{number}"].state for number in range(nodes)} <= {"cancelled"}
    assert sorted(ran) == ["after", "winner"]


async def test_an_inner_flow_that_has_not_begun_waits_for_what_cleans_up_in_it(
    app, step, ran, states, times, until
) -> None:
    tidied = asyncio.Event()

    @app.handler
    async def tidy(job: Job) -> None:
        await tidied.wait()
        job.spawn(app.job("step", {"name": "spawned"}), name="spawned")

    flow, inner = app.flow("f"), app.flow("inner")
    before = flow.wait_for("before")
    work = inner.add(step("work"), name="work")
    inner.add(tidy.job(), after=work, name="tidy", cleanup=True)
    inner.add(step("first"), name="first", cleanup=True)
    flow.add(inner, after=before)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await run.cancel()
        await until(lambda: "first" in ran)
        assert (await run["inner"].status()).state not in ("cancelled", "skipped", "succeeded")
        tidied.set()
        found = await states(run)
        ended = await times(run)
        assert (await run["inner"].status()).state == "cancelled"
    assert found["inner/work"] == "cancelled"
    assert {found[f"inner/{name}"] for name in ("tidy", "first", "spawned")} == {"succeeded"}
    assert ended["inner"] == max(ended.values())


async def test_a_flow_that_cleans_up_runs_though_it_had_not_begun(app, step, ran, states, until, hang) -> None:
    flow, inner, deep = app.flow("f"), app.flow("inner"), app.flow("deep")
    deep.map(app.job("step", {}), over=["one", "two"], argument="name", name="m")
    inner.add(step("first"), name="first").then(step("second"), name="second")
    inner.add(deep, after="second")
    work = flow.add(hang.job(), name="work")
    flow.add(inner, after=work, cleanup=True)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: "hang begins" in ran)
        await run.cancel()
        found = await states(run)
        assert (await run.status()).state == "cancelled"
    assert found.pop("work") == "cancelled"
    assert set(found.values()) == {"succeeded"}
    assert ran[2:4] == ["first", "second"]


async def test_what_runs_deep_in_a_cancelled_flow_adds_nothing_to_it(app, ran, states, until) -> None:
    go_on = asyncio.Event()

    @app.handler
    async def stubborn(job: Job) -> None:
        ran.append("stubborn")
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
        job.spawn(app.job("step", {"name": "spawned"}), name="spawned")
        async with job.transaction() as tx:
            await tx.complete(None)

    flow, inner, deep = app.flow("f"), app.flow("inner"), app.flow("deep")
    deep.add(stubborn.job(), name="stubborn")
    inner.add(deep)
    flow.add(inner)
    async with app, app.worker(concurrency=4):
        run = await flow.dispatch()
        await until(lambda: ran == ["stubborn"])
        await run["inner"].cancel()
        found = await states(run)
        status = await run.status()
    assert found.get("inner/deep/spawned") in (None, "cancelled")
    assert "spawned" not in ran
    assert status.state == "cancelled"
