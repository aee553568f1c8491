from __future__ import annotations

import asyncio
import signal

import pytest

from flowrun import Flowrun
from tests.cli.conftest import Shell, until


async def test_it_runs_what_is_dispatched_and_stops_on_sigterm(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--concurrency", "2")
    async with app:
        assert await (await app.job("work").dispatch()).result(timeout=15) == server.process.pid
        assert await (await app.job("bill", queue="bills").dispatch()).result(timeout=15) == server.process.pid
    server.send(signal.SIGTERM)
    assert await server.code() == 0
    assert server.out == ""
    assert "Traceback" not in server.err


async def test_a_factory_and_an_option_from_the_environment(shell: Shell, app: Flowrun) -> None:
    server = await shell.start("serve", FLOWRUN_APP="shop:create_app", FLOWRUN_QUEUE="bills", FLOWRUN_CONCURRENCY="1")
    await server.says("['bills']")
    server.send(signal.SIGINT)
    assert await server.code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_jobs_end(shell: Shell, app: Flowrun, number: int) -> None:
    server = await shell.serve()
    async with app:
        running = await app.job("work", {"seconds": 2.0}).dispatch()
        await until(lambda: shell.words("start"))
        server.send(number)
        await server.says("stopping")
        late = await app.job("work").dispatch()
        assert await server.code() == 0
        status = await running.status()
        assert (status.state, status.attempt) == ("succeeded", 1)
        assert (await late.status()).state == "ready"


async def test_what_does_not_end_within_grace_is_given_back(shell: Shell, app: Flowrun) -> None:
    server = await shell.serve("--grace", "0.3")
    async with app:
        run = await app.job("work", {"seconds": 60.0}).dispatch()
        await until(lambda: shell.words("start"))
        server.send(signal.SIGTERM)
        assert await server.code(10) == 0
        status = await run.status()
        assert (status.state, status.attempt) == ("ready", 0)
    assert shell.words("end") == []


@pytest.mark.parametrize("kind", ["work", "in_thread", "threaded"])
async def test_a_second_signal_gives_back_at_once(shell: Shell, app: Flowrun, kind: str) -> None:
    server = await shell.serve()
    async with app:
        run = await app.job(kind, {"seconds": 55.0}).dispatch()
        await until(lambda: shell.words("start"))
        server.send(signal.SIGTERM)
        await server.says("stopping")
        server.send(signal.SIGTERM)
        assert await server.code(15) == 0
        status = await run.status()
        assert (status.state, status.attempt) == ("ready", 0)


async def test_the_third_signal_kills_a_blocked_worker(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "stuck.py").write_text(
        "import time\nfrom shop import app, note\n"
        "@app.handler\nasync def block() -> None:\n    note('start')\n    while True:\n        time.sleep(0.05)\n"
    )
    server = await shell.start("serve", "stuck:app")
    async with app:
        await app.job("block").dispatch()
        await until(lambda: shell.words("start"))
        # Signals that are not handled yet are one: send until it is gone.
        await until(lambda: server.process.returncode is not None or server.send(signal.SIGTERM))
        assert await server.code() == 128 + signal.SIGTERM


async def test_a_signal_while_the_app_is_imported_exits_0(shell: Shell) -> None:
    (shell.directory / "slow_import.py").write_text("import os, time\nos.write(2, b'importing')\ntime.sleep(50)\n")
    server = await shell.start("serve", "slow_import:app")
    await server.says("importing")
    server.send(signal.SIGTERM)
    assert await server.code(10) == 0


async def test_a_signal_while_it_connects_exits_0(shell: Shell) -> None:
    called = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as silence:
        port = silence.sockets[0].getsockname()[1]
        server = await shell.start("serve", "shop:app", SHOP_DSN=f"postgresql://127.0.0.1:{port}/x?sslmode=disable")
        await asyncio.wait_for(called.wait(), 20)
        server.send(signal.SIGTERM)
        assert await server.code(8) == 0
        await asyncio.sleep(0)
    assert "Traceback" not in server.err


async def test_dsn_on_the_command_line_wins_over_the_app_but_the_environment_does_not(shell: Shell) -> None:
    nowhere = "postgresql://u:s3cret@127.0.0.1:1/none"
    code, _, err = await shell.run("serve", "shop:app", "--dsn", nowhere)
    assert code == 3
    assert err.startswith("flowrun: cannot reach PostgreSQL at 127.0.0.1:1/none: ")
    assert "refused" in err.lower() or "Connect call failed" in err
    server = await shell.start("serve", "shop:app", FLOWRUN_DSN=nowhere)
    await server.says("runs 4 type(s)")


async def test_embedded_is_used_whatever_the_app_says(shell: Shell, tmp_path) -> None:
    server = await shell.start(
        "serve",
        "shop:app",
        "--embedded",
        FLOWRUN_EMBEDDED_DIR=str(tmp_path / "pg"),
        SHOP_DSN="postgresql://127.0.0.1:1/x",
    )
    await server.says("runs 4 type(s)")
    server.send(signal.SIGTERM)
    assert await server.code() == 0


async def test_a_task_of_a_handler_that_exits_does_not_end_the_worker(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "exits.py").write_text(
        "import asyncio, sys\nfrom shop import app, note\n"
        "async def leave() -> None:\n    sys.exit(3)\n"
        "@app.handler\nasync def exits() -> int:\n    task = asyncio.create_task(leave())\n"
        "    await asyncio.sleep(0.1)\n    return 1\n"
    )
    server = await shell.start("serve", "exits:app")
    async with app:
        assert await (await app.job("exits").dispatch()).result(timeout=40) == 1
        assert await (await app.job("work").dispatch()).result(timeout=40) == server.process.pid
        await server.says("wants to end the process")
        server.send(signal.SIGTERM)
        assert await server.code() == 0


async def test_a_handler_that_ignores_its_cancellation_does_not_keep_the_process(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "stubborn.py").write_text(
        "import asyncio\nfrom shop import app, note\n"
        "@app.handler\nasync def stubborn() -> None:\n    note('start')\n    while True:\n"
        "        try:\n            await asyncio.sleep(50)\n        except asyncio.CancelledError:\n            pass\n"
    )
    server = await shell.start("serve", "stubborn:app")
    async with app:
        run = await app.job("stubborn").dispatch()
        await until(lambda: shell.words("start"))
        server.send(signal.SIGTERM)
        await server.says("stopping")
        server.send(signal.SIGINT)
        assert await server.code(40) == 0
        await server.says("its handler ignores its cancellation")
        assert (await run.status()).state == "ready"
