"""Plain functions that tests register with ``process=True``: their processes import this module."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrun import Discard, Job, Retry, Snooze

logger = logging.getLogger("heavy")


@dataclass
class Model:
    rows: int
    path: Path


class Diverged(ArithmeticError): ...


def train(job: Job, model: Model, scale: float = 1.0) -> dict[str, Any]:
    logger.warning("training %s", model.rows, extra={"rows": model.rows})
    job.log.info("attempt %d", job.attempt)
    job.progress(0.5, "half")
    print("printed")
    return {
        "pid": os.getpid(), "rows": model.rows * scale, "id": str(job.id), "attempt": job.attempt, "tags": job.tags,
        "parents": {name: [one.outcome, one.result] for name, one in job.parents.items()},
    }  # fmt: skip


def pid() -> int:
    return os.getpid()


def leave(how: str) -> object:
    match how:
        case "raise":
            raise Diverged(f"lost in {how}")
        case "discard":
            raise Discard("no use")
        case "retry":
            raise Retry(0.0)
        case "snooze":
            raise Snooze(0.0)
        case "exit":
            sys.exit(3)
        case "hard exit":
            os._exit(7)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "no json":
            return object()
    return None


def spin(file: str, child: bool = False) -> None:
    """Notes its process id, and works without end, alone or with a process of its own."""
    pids = [os.getpid()]
    if child:
        pids.append(subprocess.Popen(["sleep", "300"]).pid)
    with Path(file).open("a") as notes:
        notes.write(" ".join(map(str, pids)) + "\n")
    while True:
        time.monotonic()


def orphaned(file: str) -> None:
    """Dies while a process of its own lives on and holds all it inherited."""
    child = os.fork()
    if child == 0:
        time.sleep(300)
    Path(file).write_text(f"{child}\n")
    os._exit(9)


def asks(job: Job, what: str) -> None:
    import asyncio

    match what:
        case "step":
            asyncio.run(job.step("one", pid))
        case "transaction":
            job.transaction()
