"""Verbs on many, the dead letter and pruning, on the command line: the words of Python."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowrun import Flowrun


@pytest.fixture
async def shop(app: Flowrun) -> AsyncIterator[dict[str, Any]]:
    """Three jobs that failed, one that succeeded, two that are ready somewhere else, a flow that failed."""

    @app.handler("charge", attempts=1)
    async def charge(order_id: int, token: str = "bad") -> str:
        if token == "bad":
            raise ValueError(f"order {order_id} refused")
        return token

    @app.handler("note")
    async def note() -> None: ...

    async with app.worker(concurrency=4):
        failed = await app.dispatch_many([app.job("charge", {"order_id": n}, tags=[f"t{n}"]) for n in range(3)])
        fine = await app.job("note").dispatch()
        ready = await app.dispatch_many([app.job("note", queue="far", tags=["eu"]) for _ in range(2)])
        flow = app.flow("order")
        flow.add(app.job("charge", {"order_id": 9}), name="pay")
        run = await flow.dispatch()
        for one in (*failed, fine, run):
            await one.wait(timeout=20)
        yield {"failed": failed, "fine": fine, "ready": ready, "flow": run}


def ids(out: str) -> set[str]:
    return {json.loads(line)["id"] for line in out.splitlines()}


async def test_cancel_and_retry_by_filter(typed, shop) -> None:
    wanted = {str(run.id) for run in shop["ready"]}
    code, out, err = await typed("cancel", "--queue", "far", "--state", "ready", "--dry-run")
    assert (code, set(out.split()), err) == (0, wanted, "2 jobs\n")
    assert ids((await typed("cancel", "--tag", "eu", "--dry-run", "--json"))[1]) == wanted
    assert await typed("cancel", "--queue", "far", "--actor", "ann") == (0, "2\n", "")
    assert (await shop["ready"][0].audit())[0].actor == "ann"
    assert await typed("retry", "--state", "cancelled", "--queue", "far") == (0, "2\n", "")
    assert (await typed("retry", "--type", "charge", "--dry-run", "--json"))[1].count("\n") == 4
    assert await typed("retry", "--tag", "t0", "--args", '{"token": "good"}') == (0, "1\n", "")
    assert await shop["failed"][0].result(timeout=20) == "good"
    assert await typed("retry", "--name", "order", "--dry-run") == (0, f"{shop['flow'].id}\n", "1 flow\n")
    for words, said in (
        (("cancel",), "needs an id, or filters"),
        (("retry",), "needs an id, or filters"),
        (("cancel", shop["fine"].id, "--type", "x"), "takes an id, or filters"),
        (("cancel", shop["fine"].id, "--dry-run"), "takes an id, or filters"),
        (("cancel", "--name", "order", "--type", "x"), "--type is a filter of jobs"),
        (("cancel", "--flows", "--state", "running"), "cancel of flows has no filter --state"),
        (("cancel", "--state", "done"), "state= must be one of"),
        (("retry", "--flows", "--state", "failed", "--args", "{}"), "--args are arguments of jobs"),
        (("cancel", "--since", "soon"), "is a date and time"),
    ):
        code, out, err = await typed(*words)
        assert (code, out) == (2, ""), words
        assert said in err


async def test_the_dead_letter(typed, shop) -> None:
    first, second, third = shop["failed"]
    code, out, err = await typed("failed")
    assert (code, err) == (0, "")
    assert "ValueError: order 1 refused" in out
    rows = [
        json.loads(line) for line in (await typed("failed", "--json", "--type", "charge", "--limit", 2))[1].splitlines()
    ]
    assert len(rows) == 2
    assert rows[0].keys() >= {
        "queue",
        "type",
        "id",
        "args",
        "error_type",
        "message",
        "detail",
        "traceback",
        "failed_at",
    }
    assert ids((await typed("failed", "list", "--tag", "t1", "--json"))[1]) == {str(second.id)}
    assert ids((await typed("failed", "--flow", shop["flow"].id, "--json"))[1]) == {str(shop["flow"]["pay"].id)}
    assert (await typed("failed", "--error", "KeyError")) == (0, "", "no job has failed for good\n")

    assert await typed("failed", "retry", "--tag", "t1", "--dry-run") == (0, f"{second.id}\n", "1 job\n")
    assert (await second.status()).state == "failed"
    assert await typed("failed", "retry", second.id, "--args", '{"token": "new"}') == (0, "1\n", "")
    assert await second.result(timeout=20) == "new"
    assert await typed("failed", "discard", third.id, "--reason", "paid by hand") == (0, "1\n", "")
    assert (await third.audit())[0].reason == "paid by hand"
    assert (await typed("failed", "discard", "--all", "--dry-run"))[1].count("\n") == 2
    assert await typed("failed", "discard", "--tag", "t0") == (0, "1\n", "")
    assert await typed("failed", "retry", "--all", "--args", '{"token": "x"}') == (0, "1\n", "")
    assert (await shop["flow"].wait(timeout=20)).state == "succeeded"
    for words, code, said in (
        (("failed", "retry"), 2, "needs the id of a job, a filter, or --all"),
        (("failed", "discard"), 2, "needs the id of a job, a filter, or --all"),
        (("failed", "discard", first.id, "--args", "{}"), 2, "--args are for retry"),
        (("failed", "list", first.id), 2, f"flowrun show {first.id} shows one job"),
        (("failed", "retry", first.id), 1, "may have been retried or discarded"),
        (("failed", "mend"), 2, "mend"),
    ):
        found, out, err = await typed(*words)
        assert (found, out) == (code, "")
        assert said in err


async def test_delete_and_prune(typed, shop, connection) -> None:
    assert await typed("prune") == (0, "0 jobs, 0 flows\n", "")
    assert await typed("prune", "--older-than", 0, "--type", "charge", "--dry-run") == (0, "3 jobs, 0 flows\n", "")
    assert json.loads((await typed("prune", "--older-than", 0, "--dry-run", "--json"))[1]) == {"jobs": 4, "flows": 1}
    assert (await typed("delete", "--tag", "t1", "--dry-run"))[1] == f"{shop['failed'][1].id}\n"
    assert await typed("delete", "--tag", "t1") == (0, "1\n", "")
    assert await typed("delete", "--name", "order", "--state", "failed") == (0, "1\n", "")
    assert await typed("prune", "--older-than", 0, "--state", "failed") == (0, "2 jobs, 0 flows\n", "")
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 3
    for words, said in (
        (("delete",), "needs one filter at least"),
        (("delete", "--flow", shop["flow"].id), "a flow is removed as a whole"),
        (("prune", "--flows"), "--flow and --flows are for other commands"),
        (("prune", "--older-than", -1), "older_than= must be"),
    ):
        code, out, err = await typed(*words)
        assert (code, out) == (2, "")
        assert said in err


async def test_the_dead_letter_with_arguments_that_an_app_checks(typed, shop, dsn, tmp_path, monkeypatch) -> None:
    (tmp_path / "till.py").write_text(
        f"""from flowrun import Flowrun
app = Flowrun({dsn!r})

@app.handler("charge")
async def charge(order_id: int, token: str = "bad") -> str: ...
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    first, second, third = shop["failed"]
    code, _, err = await typed("failed", "retry", first.id, "--args", '{"card": 1}', "--app", "till:app")
    assert (code, "card" in err) == (1, True), err
    code, _, err = await typed("failed", "retry", first.id, "--drop", "order_id", "--app", "till:app")
    assert (code, "order_id" in err) == (1, True), err
    assert (await first.status()).state == "failed"
    good = '{"token": "new"}'
    assert await typed("failed", "retry", first.id, "--args", good, "--app", "till:app") == (0, "1\n", "")
    assert await first.result(timeout=20) == "new"
    # Without the app nobody here knows the handler: the job fails at once, and says why.
    assert await typed("failed", "retry", second.id, "--args", '{"token": "new", "card": 1}') == (0, "1\n", "")
    assert (await second.wait(timeout=20)).state == "failed"
    assert await typed("failed", "retry", second.id, "--drop", "card", "--app", "till:app") == (0, "1\n", "")
    assert await second.result(timeout=20) == "new"
    code, _, err = await typed("failed", "discard", third.id, "--drop", "token")
    assert (code, "--drop" in err) == (2, True)
