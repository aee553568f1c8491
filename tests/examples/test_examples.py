"""The examples run, as they stand, and say what they promise."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import asyncpg
import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, dsn: str, directory: Path) -> str:
    environment = os.environ | {"FLOWRUN_DSN": dsn}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        check=False,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_hello(dsn: str, tmp_path: Path) -> None:
    assert run("01_hello.py", dsn, tmp_path) == "Hello, world! (attempt 2 of 3)\n"


def test_flow(dsn: str, tmp_path: Path) -> None:
    out = run("02_flow.py", dsn, tmp_path).splitlines()
    assert out[0] == "weather-Paris"
    assert out[-2] == "Paris: 11.7 degrees  ############ ############## ##########"
    assert out[-1] == "There is no report for Atlantis today."


async def test_fastapi(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWRUN_DSN", dsn)
    api = load("03_fastapi").api
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://shop") as client,
    ):
        ordered = await client.post("/reports", params={"title": "sales"})
        assert ordered.status_code == 202
        async with asyncio.timeout(20):
            while (answer := (await client.get(f"/reports/{ordered.json()['id']}")).json())["state"] == "running":
                await asyncio.sleep(0.05)
        assert answer == {
            "state": "succeeded",
            "jobs": {"collect": "succeeded", "publish": "succeeded"},
            "result": "sales: 47",
        }
        assert (await client.get("/reports/00000000-0000-0000-0000-000000000000")).status_code == 404


async def test_order_pipeline_by_itself(dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
    out = await asyncio.to_thread(run, "order_pipeline.py", dsn, tmp_path)
    assert out.startswith("{'order': 42, 'parcel': 'P-42', 'teapots_left': 999}\n")
    files = sorted(path.name for path in (tmp_path / "order-files").iterdir())
    assert files == ["42-confirmation.txt", "42-invoice.txt"]
    assert await connection.fetchval("select sent from demo_orders where id = 42") is True
    assert await connection.fetchval("select change from demo_inventory where order_id = 42") == -1


async def test_a_day_of_the_order_system(dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
    """What happened stands in the shop's own tables, not only in what it prints."""
    out = await asyncio.to_thread(run, "order_system.py", dsn, tmp_path)
    assert out.splitlines()[-10:] == [
        "ann clicks again, a duplicate: True",
        "ann: succeeded",
        "ben: succeeded",
        "cy: failed, charge_payment failed",
        "dee: failed, goods failed, goods[1] failed",
        "eve: succeeded",
        "mending restock{'count': 5, 'article': 'moon', 'supplier': 'closed'}: nobody answers",
        "moons: 5",
        "dee gets parcel 6: cup, moon",
        "report: {'shipped': 4, 'cancelled': 2}",
    ]
    stock = dict(await connection.fetch("select article, available from stock"))
    assert stock == {"teapot": 98, "cup": 97, "moon": 4}
    paid = [row[0] for row in await connection.fetch("select order_id from payments where not refunded order by 1")]
    assert paid == [1, 2, 5, 6]
    mails = [row[0] for row in await connection.fetch("select subject from mails order by 1")]
    assert mails == [*(f"Thank you for order {n}" for n in paid), "Your payment for order 3 failed"]
    assert await connection.fetchval("select count(*) from flowrun.failed_jobs") == 2
    rules = await connection.fetch("select key from flowrun.schedules")
    assert [rule[0] for rule in rules] == ["count_orders"]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("0*.py")))
def test_an_example_fits_on_a_screen(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60
