"""PostgreSQL is shut down at once, as in a crash, and started again: that costs time and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from flowrun import DatabaseUnavailable, Flowrun
from tests.chaos.run import prepare
from tests.chaos.server import Server

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that the server's user can reach, which pytest's tmp_path is not for root."""
    with TemporaryDirectory(prefix="flowrun-test-", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o755)
        yield Path(place)


async def test_a_restart_costs_nothing_but_time(directory: Path) -> None:
    async with Server(directory) as server:
        await prepare(server.dsn)
        app = Flowrun(server.dsn, lease=10.0, poll=30.0)
        ran: Counter[int] = Counter()

        @app.handler(attempts=1)
        async def note(number: int) -> int:
            ran[number] += 1
            await asyncio.sleep(0.02)
            return number

        async with app.worker(concurrency=4), Flowrun(server.dsn) as other:
            chains = [
                await other.chain(*(other.job("note", {"number": n * 10 + k}) for k in range(5))).dispatch()
                for n in range(20)
            ]
            while len(ran) < 10:
                await asyncio.sleep(0.005)
            waiting = asyncio.create_task(chains[-1].wait(timeout=60))
            await server.stop(immediate=True)
            with pytest.raises(DatabaseUnavailable, match="cannot reach PostgreSQL at 127.0.0.1"):
                await other.job("note", {"number": 1000}).dispatch()
            await server.start()
            assert (await waiting).state == "succeeded"
            for chain in chains:
                assert (await chain.wait(timeout=60)).state == "succeeded"
            # The poll is far away: notifications are heard again.
            assert await (await other.job("note", {"number": 999}).dispatch()).result(timeout=20) == 999
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("select count(*) from flowrun.attempts") == 0, "no attempt was used"
        await connection.close()
        assert set(ran) - {999} == {n * 10 + k for n in range(20) for k in range(5)}
        # A claim is not durable: what was claimed in the last moments before the crash may be claimed again.
        assert max(ran.values()) <= 2


async def test_a_program_says_in_lines_that_its_server_restarts_and_prints_no_traceback(directory: Path) -> None:
    """Neither flowrun's, nor those of asyncio and asyncpg about connections and futures that nobody looks at any more."""
    async with Server(directory) as server:
        await prepare(server.dsn)
        with (directory / "stderr").open("w") as stderr:
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-W", "default", "-m", "tests.chaos.busy", server.dsn,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        assert program.stdin
        assert program.stdout
        try:
            assert await asyncio.wait_for(program.stdout.readline(), 30) == b"ready\n"
            for immediate in (True, False, True, False):
                program.stdin.write(b"work\n")
                assert await asyncio.wait_for(program.stdout.readline(), 40) == b"done\n"
                await server.stop(immediate=immediate)
                await asyncio.sleep(0.5)
                await server.start()
            program.stdin.write(b"work\n")
            assert await asyncio.wait_for(program.stdout.readline(), 40) == b"done\n"
            program.stdin.close()
            assert await asyncio.wait_for(program.wait(), 30) == 0
        finally:
            if program.returncode is None:
                program.kill()
        said = (directory / "stderr").read_text()
        assert "cannot claim" in said
        for word in ("Traceback", "never retrieved", ":asyncio:", ":asyncpg", "Warning"):
            assert word not in said, said[:20_000]
