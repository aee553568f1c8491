from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.cli.conftest import Shell

NODES = ["charge_payment", "send_confirmation", "generate_invoice", "sync_inventory", "notify_warehouse"]
APOLOGY = "send_problem_email"


def states(out: str) -> dict[str, str]:
    found = {}
    for line in out.splitlines():
        words = line.split()
        for name in [*NODES, APOLOGY]:
            if name in words[:6]:
                found[name] = words[words.index(name) + 1]
    return found


def expected(fail: str | None) -> dict[str, str]:
    """By the truth table of the contract, written out."""
    ok, no, off = "succeeded", "failed", "skipped"
    table = {
        None: [ok, ok, ok, ok, ok, off],
        "charge_payment": [no, off, off, off, off, ok],
        "send_confirmation": [ok, no, off, off, off, off],
        "generate_invoice": [ok, ok, no, ok, ok, off],
        "sync_inventory": [ok, ok, ok, no, off, off],
        "notify_warehouse": [ok, ok, ok, ok, no, off],
        "send_problem_email": [no, off, off, off, off, no],
    }
    return dict(zip([*NODES, APOLOGY], table[fail], strict=True))


@pytest.mark.parametrize("fail", [None, *NODES, APOLOGY])
async def test_it_ends_by_itself_and_shows_what_happened(
    shell: Shell, dsn: str, connection: asyncpg.Connection, fail: str | None, tmp_path: Path
) -> None:
    arguments = [] if fail is None else ["--fail", fail]
    code, out, err = await shell.run("demo", *arguments, FLOWRUN_DSN=dsn, TMPDIR=str(tmp_path))
    assert code == 0, err
    assert err == ""
    assert states(out) == expected(fail)
    paid = expected(fail)["charge_payment"] == "succeeded"
    assert await connection.fetchval("select count(*) from demo_orders") == int(paid)
    for line in out.splitlines():
        if line.startswith("file"):
            assert Path(line.split(maxsplit=1)[1]).stat().st_size
    assert ("result" in out) == (fail in {None, "generate_invoice"})
    assert any("problem" in line for line in out.splitlines() if line.startswith("file")) == (fail == "charge_payment")


async def test_a_retry_is_visible(shell: Shell, dsn: str) -> None:
    _, out, _ = await shell.run("demo", "--dsn", dsn)
    (line,) = [line for line in out.splitlines() if "send_confirmation" in line]
    assert "2 attempts" in line


async def test_it_starts_the_embedded_postgres_and_says_so_once(shell: Shell, tmp_path: Path) -> None:
    code, out, err = await shell.run("demo", "--keep", FLOWRUN_EMBEDDED_DIR=str(tmp_path / "pg"))
    assert code == 0
    assert states(out) == expected(None)
    assert err.count("embedded PostgreSQL") == 1
    assert "PostgreSQL keeps running: psql 'postgresql:" in err


def test_in_a_terminal_it_is_drawn_live(dsn: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"FLOWRUN_DSN": dsn, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "flowrun", "demo"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=tmp_path,
    )
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 65536):
            drawn += chunk
    except OSError:
        pass  # Linux: the other end is closed
    assert process.wait(20) == 0
    os.close(ours)
    text = drawn.decode()
    for state in ("waiting", "running", "scheduled", "succeeded", "skipped"):
        assert state in text
    assert "\x1b[" in text
