"""A deploy, with the code of the version before: it works when the schema changes, and beside the new one after that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from flowrun import Flowrun
from flowrun.store import migrate
from tests.model import invariants
from tests.upgrades import history

try:
    BEFORE = history.commit_before()
except history.NoHistory:  # a copy without history; it is no part of a source distribution either
    BEFORE = ""


async def a_deploy(dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Old worker on the old schema; the schema is migrated; both versions dispatch, and run what the other wrote."""
    shipped = migrate.migrations()
    await connection.execute("drop schema flowrun cascade")
    monkeypatch.setattr(migrate, "migrations", lambda: shipped[:-1])
    await migrate.migrate(connection, "flowrun")
    monkeypatch.setattr(migrate, "migrations", lambda: shipped)
    program = Path(__file__).with_name("before.py")
    old = await asyncio.create_subprocess_exec(
        sys.executable, str(program), dsn, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert old.stdin is not None
    assert old.stdout is not None
    try:
        assert (await old.stdout.readline()).decode().split() == ["works", str(place / "flowrun/__init__.py")]
        assert await migrate.migrate(connection, "flowrun") == [shipped[-1]]
        app = Flowrun(dsn, poll=0.2, lease=4.0)
        async with app:
            await _new_flow_on_the_old_worker(app)
            old.stdin.write(b"one\n")
            run = await app.get_flow((await old.stdout.readline()).decode().strip())
            assert await run.result(timeout=40) == 3

            @app.handler(attempts=3)
            async def add(n: int, more: object = None) -> int:
                return n + 1

            async with app.worker(concurrency=4):
                old.stdin.write(b"\n" * 20)
                ids = [(await old.stdout.readline()).decode().strip() for _ in range(20)]
                mine = [await app.chain(add.job(n=1), add.job(n=2), add.job(n=3)).dispatch() for _ in range(50)]
                assert [await run.result(timeout=40) for run in mine] == [4] * 50
                for id in ids:
                    run = await app.get_flow(id)
                    assert await run.result(timeout=40) == 3
                    assert (await run.status())["broken"].state == "failed"
                old.stdin.close()
                assert await asyncio.wait_for(old.wait(), 40) == 0
                assert await (await add.dispatch(n=1)).result(timeout=40) == 2
                assert len(await app.workers.list()) == 1
    finally:
        if old.returncode is None:
            old.kill()
            await old.wait()
    await invariants.check(connection, at_rest=True)


async def _new_flow_on_the_old_worker(app: Flowrun) -> None:
    """All of it is written and settled by different versions: joins, branches, retries, maps, an undone flow."""
    flow = app.flow("of this version", tags=["new"])
    first = flow.add(app.job("add", {"n": 1}), name="first")
    mended = flow.add(app.job("breaks", {"always": False}), after=first, name="mended")
    broken = flow.add(app.job("breaks", {"always": True}), after=first, name="broken", optional=True)
    flow.add(app.job("add", {"n": 5}), after=broken.failed, name="sorry")
    flow.add(app.job("add", {"n": 5}), after=mended.failed, name="never")
    counted = flow.add(app.job("items", {"n": 3}), name="counted")
    mapped = flow.map(app.job("add"), over=counted.result, argument="n", name="mapped")
    flow.add(app.job("add", {"n": first.result, "more": [mapped.result]}), after=[mended, broken.finished], name="last")
    status = await (run := await flow.dispatch()).wait(timeout=40)
    assert {name: job.state for name, job in status.nodes.items() if job.state != "succeeded"} == {
        "broken": "failed", "never": "skipped"
    }  # fmt: skip
    assert await run["mapped"].result(timeout=5) == [1, 2, 3]
    assert await run["last"].result(timeout=5) == 3


if BEFORE:

    async def test_a_deploy(
        dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        await a_deploy(dsn, connection, monkeypatch, history.unpack(BEFORE, tmp_path))
