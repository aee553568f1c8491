"""``flowrun serve --processes``: a parent and its children."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import asyncpg

from flowrun import Flowrun
from tests.cli.conftest import Command, Shell, until


def children(command: Command) -> list[int]:
    found = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children").read_text()
    return [int(pid) for pid in found.split()]


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [pid] if state != "Z" else []
    return found


async def test_both_work_and_sigterm_ends_both(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--processes", "2", "--concurrency", "1", workers=2)
    pids = children(server)
    assert len(pids) == 2
    async with app:
        runs = await app.dispatch_many([app.job("work", {"seconds": 0.5}) for _ in range(4)])
        assert {await run.result(timeout=20) for run in runs} == set(pids)
        last = await app.job("work", {"seconds": 1.5}).dispatch()
        await until(lambda: len(shell.words("start")) == 5)
        server.send(signal.SIGTERM)
        assert await server.code() == 0
        assert (await last.status()).state == "succeeded"
    assert alive(pids) == []


async def test_a_second_signal_reaches_the_children(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--processes", "2", workers=2)
    async with app:
        run = await app.job("work", {"seconds": 50.0}).dispatch()
        await until(lambda: shell.words("start"))
        server.send(signal.SIGINT)
        await server.says("stopping", 2)
        server.send(signal.SIGINT)
        assert await server.code(10) == 0
        assert (await run.status()).attempt == 0


async def test_a_second_signal_reaches_a_child_that_has_not_heard_the_first(shell: Shell, app: Flowrun) -> None:
    """Two signals of a kind that are pending at once are one."""
    server = await shell.serve("--processes", "2", workers=2)
    async with app:
        run = await app.job("work", {"seconds": 50.0}).dispatch()
        (deaf,) = await until(lambda: shell.words("start"))
        os.kill(deaf, signal.SIGSTOP)
        server.send(signal.SIGTERM)
        await server.says(f"[{server.process.pid}] flowrun.serve: SIGTERM: stopping")
        server.send(signal.SIGTERM)
        await server.says(f"[{server.process.pid}] flowrun.serve: SIGTERM: giving back")
        os.kill(deaf, signal.SIGCONT)
        assert await server.code(25) == 0
        assert (await run.status()).attempt == 0


async def test_a_killed_child_is_replaced_and_its_job_runs_again(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--processes", "2", workers=2)
    async with app:
        run = await app.job("work", {"seconds": 2.0}).dispatch()
        (victim,) = await until(lambda: shell.words("start"))
        os.kill(victim, signal.SIGKILL)
        await server.says("SIGKILL); starting another")
        await server.says("runs 4 type(s)", 3)
        assert len(alive(children(server))) == 2
        assert await run.result(timeout=30) != victim
    server.send(signal.SIGTERM)
    assert await server.code() == 0


async def test_a_killed_parent_leaves_no_child_and_no_job(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--processes", "2", workers=2)
    pids = children(server)
    async with app:
        run = await app.job("work", {"seconds": 1.5}).dispatch()
        await until(lambda: shell.words("start"))
        server.send(signal.SIGKILL)
        await server.code()
        await until(lambda: not alive(pids))
        assert (await run.status()).state == "succeeded"


async def test_what_no_child_can_do_ends_all(shell: Shell, connection: asyncpg.Connection) -> None:
    assert (await shell.run("serve", "shop:nothing", "--processes", "2"))[0] == 2
    code, _, err = await shell.run("serve", "shop:app", "--processes", "2", "--dsn", "postgresql://127.0.0.1:1/x")
    assert code == 3
    assert "starting another" not in err
    await connection.execute("drop schema flowrun cascade")
    assert (await shell.run("serve", "shop:app", "--processes", "2"))[0] == 4
