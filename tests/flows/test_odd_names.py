"""Odd but allowed names are data everywhere."""

from __future__ import annotations

import pytest

NAMES = [
    "x" * 200,
    "'; drop table flowrun.jobs; --",
    'a"b\\c',
    "größe 📮",
    "a/b",
    "%s {0} $1",
    "..",
    "null",
    "a,b",
    "{a}",
]


@pytest.mark.parametrize("name", NAMES)
async def test_odd_names(app, name: str) -> None:
    @app.handler(name, queue=name, tags=[name])
    async def echo(value: str) -> str:
        return value

    flow = app.flow(name, tags=[name, "b"])
    first = flow.add(echo.job(value=name), name=name)
    inner = app.flow(name)
    inner.add(echo.job(value=first.result), name=name)
    inner.add(echo.job(value="x"), name="x")
    flow.add(inner, name=f"{name[:100]}2", after=name)
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == {name: name, "x": "x"}
        status = await run.status()
        assert set(status.nodes) == {name, f"{name[:100]}2/{name}", f"{name[:100]}2/x"}
        assert status[name].queue == status[name].type == name
        assert (await app.get_flow(run.id)).name == name
        assert await (await echo.dispatch(value="1")).result(timeout=10) == "1"
    assert name[:50] in str(flow)
