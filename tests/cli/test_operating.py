"""What operators look at and do on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.cli.entry import main


@pytest.fixture
async def shop(app: Flowrun) -> AsyncIterator[dict[str, Any]]:
    """A flow that stands at a gate, one whose node failed, and a job for which there is no worker."""
    broken = {"invoice"}

    @app.handler("step", attempts=1)
    async def step(name: str) -> str:
        if name in broken:
            raise ValueError(f"{name} broke")
        return name

    def job(name: str):
        return app.job("step", {"name": name})

    async with app.worker(concurrency=4):
        gated = app.flow("order", tags=["urgent"])
        pay = gated.add(job("pay"), name="pay")
        ask = gated.wait_for("approved", after=pay, name="ask", answers=["yes", "no"])
        gated.add(job("ship"), after=ask, name="ship")
        failing = app.flow("bill")
        inner = app.flow("inside")
        a = inner.add(job("a"), name="a")
        inner.add(job("b"), after=a, name="b")
        node = failing.add(inner, name="inside")
        invoice = failing.add(job("invoice"), after=node, name="invoice")
        failing.add(job("send"), after=invoice, name="send")
        runs = {"gated": await gated.dispatch(), "failing": await failing.dispatch()}
        await runs["failing"].wait(timeout=10)
        await runs["gated"]["pay"].wait(timeout=10)
        while not await app.gates.list():
            await asyncio.sleep(0.01)
        runs["alone"] = await app.job("nobody", tags=["odd"], queue="far").dispatch()
        yield {**runs, "broken": broken}


async def test_lists(typed, shop) -> None:
    code, out, err = await typed("flows")
    assert (code, err) == (0, "")
    assert str(shop["gated"].id) in out
    assert out.index("bill") < out.index("order")
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["failed", "running"]
    rows = [json.loads(line) for line in (await typed("flows", "--json", "--tag", "urgent"))[1].splitlines()]
    assert [(row["name"], row["state"]) for row in rows] == [("order", "running")]
    assert (await typed("flows", "--state", "cancelled")) == (0, "", "no such flow\n")
    code, out, _ = await typed("jobs", "--json", "--type", "step", "--state", "failed")
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert (row["name"], row["error"], row["flow_id"]) == ("invoice", "invoice broke", str(shop["failing"].id))
    rows = [json.loads(line) for line in (await typed("jobs", "--json", "--flow", shop["failing"].id))[1].splitlines()]
    assert [row["name"] for row in rows] == ["send", "invoice", "inside/b", "inside/a"]
    older = (await typed("jobs", "--json", "--flow", shop["failing"].id, "--before", rows[1]["id"], "--limit", 1))[1]
    assert json.loads(older)["name"] == "inside/b"
    assert "far" in (await typed("jobs", "--tag", "odd", "--queue", "far", "--since", "2020-01-01"))[1]
    assert (await typed("jobs", "--until", "2020-01-01"))[1] == ""
    (row,) = [json.loads(line) for line in (await typed("gates", "--json"))[1].splitlines()]
    assert (row["flow"], row["node"], row["answers"]) == ("order", "ask", ["yes", "no"])
    (row,) = [json.loads(line) for line in (await typed("workers", "--json"))[1].splitlines()]
    assert row["types"] == ["step"]
    assert "far" in (await typed("queues"))[1]


async def test_show_draws_a_flow(typed, shop) -> None:
    code, out, err = await typed("show", shop["failing"].id)
    assert (code, err) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert "bill" in lines[0]
    places = {
        name: next(line.index(name) for line in lines[1:] if f" {name} " in line) for name in ("inside/a", "inside/b")
    }
    places |= {
        name: next(line.index(name) for line in lines[1:] if f" {name} " in f"{line} ")
        for name in ("inside", "invoice", "send")
    }
    assert places["inside"] < places["inside/a"] < places["inside/b"]
    assert places["inside"] < places["invoice"] < places["send"]
    assert "ValueError: invoice broke" in out
    shown = json.loads((await typed("show", shop["failing"].id, "--json"))[1])
    assert shown["nodes"]["inside/a"]["state"] == "succeeded"
    code, out, _ = await typed("show", shop["failing"]["invoice"].id)
    assert code == 0
    assert "state      failed" in out
    assert "ValueError: invoice broke" in out
    assert "Traceback" in out


async def test_show_says_what_a_job_was_asked_for(typed, app) -> None:
    async with app:
        asked = app.job("send", tags=["mail", "slow"], key="ann", limit=("tenant-7", 5), fair_key="seven")
        run = await asked.dispatch()
    out = (await typed("show", run.id))[1]
    for line in ("tags       mail, slow", "key        ann", "limit      5 at once with tenant-7", "fair key   seven"):
        assert f"  {line}\n" in out
    shown = json.loads((await typed("jobs", "--tag", "slow", "--json"))[1])
    assert (shown["tags"], shown["key"], shown["limit"], shown["limit_key"]) == (["mail", "slow"], "ann", 5, "tenant-7")


async def test_explain(typed, shop) -> None:
    assert "no worker that lives serves the queue 'far'" in (await typed("explain", shop["alone"].id))[1]
    assert "it waits for 'ask' to succeed" in (await typed("explain", shop["gated"].id, "ship"))[1]
    found = json.loads((await typed("explain", shop["gated"].id, "ask", "--json"))[1])
    assert found["state"] == "waiting"


async def test_signal(typed, shop) -> None:
    run = shop["gated"]
    code, _, err = await typed("signal", run.id, "approved", '"maybe"')
    assert code == 1
    assert "maybe" in err
    assert (await typed("signal", run.id, "approved", '"yes"', "--actor", "ann", "--reason", "known"))[0] == 0
    assert await run["ship"].result(timeout=10) == "ship"
    assert (await typed("signal", run.id, "approved", '"no"'))[0] == 1
    (entry,) = await run.audit()
    assert (entry.verb, entry.actor, entry.reason) == ("signal", "ann", "known")


async def test_retry_with_other_arguments(typed, shop) -> None:
    run = shop["failing"]
    assert (await typed("retry", run.id))[:2] == (0, "1\n")
    assert (await run.wait(timeout=10)).state == "failed"
    code, _, err = await typed("retry", run.id, "--args", '{"name": "bill"}')
    assert code == 2
    assert "name its node" in err
    assert (await typed("retry", run.id, "invoice", "--args", '{"name": "bill"}'))[:2] == (0, "1\n")
    assert await run["send"].result(timeout=10) == "send"
    assert await run["invoice"].result(timeout=10) == "bill"
    assert [entry.verb for entry in await run.audit()] == ["retry", "retry"]
    assert [entry.node for entry in await run["invoice"].audit()] == ["invoice"]


async def test_resolve_and_skip(typed, shop) -> None:
    run = shop["failing"]
    assert (await typed("resolve", run.id, "invoice", '{"paid": true}', "--reason", "by hand"))[0] == 0
    assert await run["send"].result(timeout=10) == "send"
    assert await run["invoice"].result(timeout=10) == {"paid": True}
    assert (await typed("skip", shop["gated"].id, "ship"))[0] == 0
    assert (await shop["gated"]["ship"].status()).state == "skipped"
    code, _, err = await typed("skip", shop["gated"].id, "ship")
    assert code == 1
    assert err.startswith("flowrun: ")


async def test_cancel(typed, shop) -> None:
    assert (await typed("cancel", shop["gated"].id, "--reason", "twice"))[:2] == (0, "cancelled\n")
    assert (await shop["gated"].wait(timeout=10)).state == "cancelled"
    assert (await typed("cancel", shop["gated"].id))[:2] == (1, "too late\n")
    assert (await typed("cancel", shop["alone"].id))[:2] == (0, "cancelled\n")


async def test_pause_and_resume(typed, shop, app) -> None:
    assert (await typed("queues", "pause", "default"))[:2] == (0, "")
    assert "was paused already" in (await typed("queues", "pause", "default"))[2]
    (row,) = [
        one for one in map(json.loads, (await typed("queues", "--json"))[1].splitlines()) if one["name"] == "default"
    ]
    assert row["paused"]
    assert (await typed("queues", "resume", "default"))[0] == 0


async def test_schedules(typed, shop, app) -> None:
    assert (await typed("schedules")) == (0, "", "no schedule is stored\n")
    await app.schedules.put("nightly", "0 3 * * *", app.job("step", {"name": "n"}), timezone="Europe/Paris")
    await app.schedules.put("often", every=3600.0, spec=app.chain(app.job("nobody"), name="chained"), overlap="skip")
    out = (await typed("schedules"))[1]
    assert "0 3 * * *" in out
    assert "flow chained" in out
    rows = [json.loads(line) for line in (await typed("schedules", "--json"))[1].splitlines()]
    assert [(row["key"], row["every"], row["kind"]) for row in rows] == [
        ("nightly", None, "job"),
        ("often", 3600, "flow"),
    ]
    assert (await typed("schedules", "pause", "nightly"))[:2] == (0, "")
    assert "was paused already" in (await typed("schedules", "pause", "nightly"))[2]
    out = (await typed("schedules", "show", "nightly"))[1]
    assert "At 03:00 every day, Europe/Paris" in out
    assert "paused" in out
    assert (await typed("schedules", "explain", "nightly"))[1] == "nightly is paused\n"
    out = (await typed("schedules", "explain", "often"))[1]
    assert out.startswith("often is scheduled\n  its next tick is at ")
    assert "no worker that lives serves the queue 'default' and has a handler of type 'nobody'" in out
    code, out, _ = await typed("schedules", "trigger", "nightly", "--actor", "ann")
    assert code == 0
    run = await app.get_job(out.strip())
    assert await run.result(timeout=10) == "n"
    assert [entry.actor for entry in await run.audit()] == ["ann"]
    assert (await typed("schedules", "resume", "nightly"))[0] == 0
    assert not (await app.schedules.get("nightly")).paused
    code, out, _ = await typed("schedules", "trigger", "often")
    assert (await app.get_flow(out.strip())).name == "chained"
    code, _, err = await typed("schedules", "trigger", "often")
    assert (code, "has not ended" in err) == (1, True)
    assert json.loads((await typed("schedules", "show", "often", "--json"))[1])["running"] is True
    assert (await typed("schedules", "remove", "often"))[0] == 0
    assert (await typed("schedules", "remove", "often"))[0] == 1
    assert (await typed("schedules", "resume", "often"))[0] == 1


async def test_what_a_job_says_does_not_steer_the_terminal(typed, app: Flowrun, connection: asyncpg.Connection) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt"

    @app.handler(attempts=1)
    async def bad(fail: bool) -> str:
        if fail:
            raise ValueError(evil)
        return evil

    async with app, app.worker(concurrency=1):
        flow = app.flow("f")
        flow.add(bad.job(fail=True), name="n")
        run = await flow.dispatch()
        await run.wait(timeout=20)
        single = await bad.dispatch(fail=True)
        await single.wait(timeout=20)
    # Such names are refused; they stand there all the same, written by somebody else.
    await connection.execute("update flowrun.jobs set type = $1 where kind = 0", "x\x9b31m\u202e")
    await connection.execute("update flowrun.jobs set name = $1 where name = 'n'", "n\x9b1m")
    await connection.execute("update flowrun.flows set name = $1", "f\x9b1m")
    for words in (["show", run.id], ["show", single.id], ["jobs"], ["flows"], ["failed"], ["explain", single.id]):
        for as_json in ([], ["--json"]):
            code, out, err = await typed(*words, *as_json)
            assert code == 0
            assert "title" in out or words[0] in ("jobs", "flows")
            assert not set(out + err) & set("\x1b\x07\x9b\u202e")
            if as_json and words[0] == "failed":
                assert {json.loads(line)["message"] for line in out.splitlines()} == {evil}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "42"], 2, "'42' is not an id"),
        (["show", "01a20661-4f29-7643-a2d7-875b0f0776f1"], 1, "no flow or job 01a20661"),
        (["flows", "--state", "lost"], 2, "--state is one of running, succeeded"),
        (["jobs", "--since", "yesterday"], 2, "--since is a date and time"),
        (["jobs", "--limit", "0"], 2, "limit= must be"),
        (["signal", "01a20661-4f29-7643-a2d7-875b0f0776f1", "x", "yes"], 2, "is not JSON"),
        (["retry", "01a20661-4f29-7643-a2d7-875b0f0776f1", "--args", "[1]"], 2, "JSON object"),
        (["queues", "pause"], 2, "needs the name of a queue"),
        (["schedules", "trigger"], 2, "needs the key of a schedule"),
    ],
)
async def test_mistakes_are_one_line(typed, words, code, said) -> None:
    got, out, err = await typed(*words)
    assert (got, out) == (code, "")
    assert said in err
    assert err.startswith("flowrun: ")
    assert err.count("\n") == 1


async def test_a_database_that_is_away_or_empty(typed, dsn, capsys, flowrun_postgres_server) -> None:
    assert await asyncio.to_thread(main, ["flows", "--dsn", "postgresql://127.0.0.1:1/none"]) == 3
    assert await asyncio.to_thread(main, ["flows", "--dsn", dsn, "--schema", "elsewhere"]) == 4
    assert "flowrun migrate" in capsys.readouterr().err


async def test_dispatch_and_wait(shell) -> None:
    code, out, err = await shell.run("dispatch", "shop:app", "bill", "{}")
    assert (code, err) == (0, "")
    job = out.strip()
    server = await shell.serve()
    code, out, err = await shell.run("dispatch", "shop:app", "work", '{"seconds": 0}', "--wait", "--timeout", "20")
    assert code == 0
    assert json.loads(out) == server.process.pid
    code, out, err = await shell.run("show", job, FLOWRUN_DSN=shell.dsn)
    assert "type       bill" in out
    code, out, err = await shell.run("dispatch", "shop:app", "wrok")
    assert code == 2
    assert "it has bill" in err
