"""A program that configures its logging does not silence flowrun by it."""

from __future__ import annotations

import ast
import asyncio
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import flowrun
from flowrun import Flowrun, Job
from flowrun.logs import Log

CONFIG = {
    "version": 1,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": ["file"]},
}
"""As the documentation of Python has it: existing loggers are disabled."""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[[], str]]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    path = tmp_path / "theirs.log"
    config = {**CONFIG, "handlers": {"file": {**CONFIG["handlers"]["file"], "filename": str(path)}}}  # type: ignore[index]
    logging.config.dictConfig(config)
    yield path.read_text
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers, root.level = before[0], before[1]
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).disabled = False


async def test_a_worker_and_its_jobs_are_heard(dsn: str, told: Callable[[], str]) -> None:
    app = Flowrun(dsn)

    @app.handler(attempts=1)
    async def fail(job: Job) -> None:
        job.log.info("as the handler says")
        raise ValueError("no")

    async with app.worker(concurrency=1):
        run = await fail.dispatch()
        with pytest.raises(flowrun.JobFailed):
            await run.result(timeout=20)
    assert "INFO flowrun.worker worker " in told()
    assert "INFO flowrun.job as the handler says" in told()
    assert "ERROR flowrun.job job " in told()


async def test_a_served_module_that_configures_logging(
    dsn: str, tmp_path: Path, until: Callable[..., Awaitable[None]]
) -> None:
    (tmp_path / "theirs.log").touch()
    (tmp_path / "served.py").write_text(
        f"""
import logging.config, os
from flowrun import Flowrun
app = Flowrun(os.environ["SERVED_DSN"])
@app.handler
async def nothing() -> None: ...
config = {CONFIG!r}
config["handlers"]["file"]["filename"] = "theirs.log"
logging.config.dictConfig(config)
"""
    )
    served = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowrun", "serve", "served:app", cwd=tmp_path, env=os.environ | {"SERVED_DSN": dsn}
    )
    try:
        await until(lambda: "runs 1 type(s)" in (tmp_path / "theirs.log").read_text(), 30)
        served.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.wait(), 20) == 0
    finally:
        if served.returncode is None:
            served.kill()


def test_a_record_says_who_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    Log("flowrun.worker").warning("%d things", 3, extra={"more": 1})
    [record] = caplog.records
    assert (record.getMessage(), record.name, record.funcName) == (
        "3 things", "flowrun.worker", "test_a_record_says_who_wrote_it",
    )  # fmt: skip
    assert record.more == 1  # type: ignore[attr-defined]


def test_a_level_is_respected(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "flowrun")
    Log("flowrun.worker").warning("not heard")
    assert caplog.records == []


def test_no_module_has_a_logger_that_others_can_silence() -> None:
    root = Path(flowrun.__file__).parent
    allowed = {"logs.py", "cli/demo.py", "worker/child.py", "worker/processes.py"}
    for path in root.rglob("*.py"):
        if str(path.relative_to(root)) in allowed:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        assert not [node for node in calls if node.attr == "getLogger"], f"{path} has a logger of its own: use Log"
