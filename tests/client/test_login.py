"""A server that refuses a password: it is said in one line, at once, and the password is not."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator

import pytest

from flowrun import DatabaseUnavailable, Flowrun
from flowrun.cli.entry import main

SECRET = "hunter2"
SSL_REQUEST = 80877103


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for the password, and do not like it."""
    while True:
        length, code = struct.unpack("!ii", await reader.readexactly(8))
        await reader.readexactly(length - 8)
        if code != SSL_REQUEST:
            break
        writer.write(b"N")
    writer.write(b"R" + struct.pack("!ii", 8, 3))
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    assert kind == b"p"
    assert SECRET.encode() in await reader.readexactly(length - 4)
    said = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "ann"\0\0'
    writer.write(b"E" + struct.pack("!i", len(said) + 4) + said)
    await writer.drain()
    writer.close()


@pytest.fixture
async def wrong() -> AsyncIterator[str]:
    """The DSN of such a server, with a password in it."""
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"postgresql://ann:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}/shop"


async def test_a_wrong_password_is_said_and_not_repeated(
    wrong: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Flowrun(wrong)
    app.handler("x")(lambda: None)
    began = time.monotonic()
    for opens in (app, app.worker()):
        with pytest.raises(
            DatabaseUnavailable, match=r"at 127\.0\.0\.1:\d+/shop refused: password auth.* failed"
        ) as error:
            async with opens:
                raise AssertionError("it cannot be opened")
        assert SECRET not in f"{error.value!r} {error.value.__cause__!r}"
    assert time.monotonic() - began < 30
    for command in (["migrate"], ["jobs"], ["doctor"]):
        assert await asyncio.to_thread(main, [*command, "--dsn", wrong]) == 3
        said = capsys.readouterr()
        assert "password authentication failed" in said.err
        assert said.err.count("\n") == 1
        assert SECRET not in said.out + said.err
    assert SECRET not in caplog.text
