"""``flowrun serve --reload``: a changed file, a broken one, a mended one."""

from __future__ import annotations

import signal

from flowrun import Flowrun
from tests.cli.conftest import Shell, until

VERSION = "from shop import app\n@app.handler\nasync def version() -> int:\n    return {}\n"


async def test_a_change_starts_it_again_and_a_broken_file_waits_for_the_next(shell: Shell, app: Flowrun) -> None:
    file = shell.directory / "versions.py"
    file.write_text(VERSION.format(1))
    server = await shell.start("serve", "versions:app", "--reload")
    async with app:
        assert await (await app.job("version").dispatch()).result(timeout=60) == 1
        running = await app.job("work", {"seconds": 300.0}).dispatch()
        await until(lambda: shell.words("start"))
        file.write_text(VERSION.format(22))
        await server.says("versions.py has changed")
        assert await (await app.job("version").dispatch()).result(timeout=60) == 22
        await until(lambda: len(shell.words("start")) == 2)
        assert (await running.status()).attempt == 1, "what ran was given back, no attempt used"
        file.write_text("nonsense(")
        await server.says("waiting for a change")
        file.write_text(VERSION.format(333))
        assert await (await app.job("version").dispatch()).result(timeout=60) == 333
        await running.cancel()
    server.send(signal.SIGTERM)
    assert await server.code() == 0
    assert (await shell.run("serve", "versions:app", "--reload", "--processes", "2"))[0] == 2
