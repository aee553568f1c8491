"""Handlers with ``process=True`` in real programs: found again in their processes, and never orphaned."""

from __future__ import annotations

import asyncio
import signal
import sys

from flowrun import Flowrun
from tests.cli.conftest import Shell, until
from tests.cli.test_processes import alive

HEAVY = """
import os, time
from shop import app, note

@app.handler(process=True)
def spin() -> None:
    note("spin")
    while True:
        time.monotonic()

@app.handler("own_pid", process=True)
def ask(times: int = 1) -> int:
    return os.getpid() * times
"""

SCRIPT = """
import asyncio, os
from flowrun import Flowrun, JobFailed

app = Flowrun(os.environ["SHOP_DSN"])

class Sums:
    @staticmethod
    @app.handler(process=True, attempts=1)
    def total(numbers: list[int]) -> list[int]:
        return [sum(numbers), os.getpid()]

async def main():
    async with app.worker():
        try:
            total, pid = await (await Sums.total.dispatch([1, 2, 3])).result(timeout=60)
            print(total, pid != os.getpid(), flush=True)
        except JobFailed as error:
            print(error, flush=True)
"""


async def serve_and_stop(shell: Shell, app: Flowrun, *signals: int) -> tuple[int, str]:
    """Two processes, one idle and one that works without end, gone with their worker; its exit code, and the job's state."""
    server = await shell.start("serve", "heavy:app", "--grace", "50")
    idle = await (await app.job("own_pid").dispatch()).result(timeout=60)
    before = len(shell.words("spin"))
    run = await app.job("spin").dispatch()
    await until(lambda: len(shell.words("spin")) > before)
    busy = shell.words("spin")[-1]
    assert set(alive([idle, busy])) == {idle, busy}
    for sent in signals:
        server.send(sent)
        if sent == signal.SIGTERM:
            await server.says("stopping")
    code = await server.code()
    await until(lambda: not alive([idle, busy]))
    state = (await run.status()).state
    await run.cancel()
    return code, state


async def test_they_end_with_their_worker_however_it_ends(shell: Shell, app: Flowrun) -> None:
    (shell.directory / "heavy.py").write_text(HEAVY)
    async with app:
        assert await serve_and_stop(shell, app, signal.SIGTERM, signal.SIGINT) == (0, "ready")
        assert await serve_and_stop(shell, app, signal.SIGKILL) == (-signal.SIGKILL, "running")


async def test_a_script_is_imported_by_its_processes_and_must_be_guarded(shell: Shell) -> None:
    async def run(name: str, last: str, *how: str) -> str:
        (shell.directory / f"{name}.py").write_text(SCRIPT + last)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *(how or (f"{name}.py",))),
            cwd=shell.directory, env=shell.environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return out.decode().strip()

    guarded = 'if __name__ == "__main__":\n    asyncio.run(main())\n'
    assert await run("guarded", guarded) == "6 True"
    assert await run("module", guarded, "-m", "module") == "6 True"
    assert "if __name__ == '__main__'" in await run("unguarded", "asyncio.run(main())\n")
