from __future__ import annotations

import json


async def test_it_ends_with_1_when_something_is_wrong(shell, dsn: str) -> None:
    code, out, err = await shell.run("doctor", "--dsn", dsn, "--json")
    assert (code, err) == (1, "")  # the test server's fsync is off
    found = [json.loads(line) for line in out.splitlines()]
    assert {"check": "schema", "level": "ok"}.items() <= found[[one["check"] for one in found].index("schema")].items()
    assert all(one["advice"] for one in found if one["level"] == "wrong")
    code, out, _ = await shell.run("doctor", FLOWRUN_DSN=dsn)
    assert code == 1
    assert "WRONG disk: fsync is off" in out
    assert (await shell.run("doctor", "--dsn", "postgresql://localhost:1/x"))[0] == 3
