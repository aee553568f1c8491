"""A handler with ``process=True``: its processes import this module. How it ends follows from its number."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from flowrun import Job
from tests.chaos.journal import Journal

PLACE = "FLOWRUN_CHAOS"
"""The environment variable that names the run's directory."""
TIMEOUT = 1.0
"""Seconds, of an attempt."""
WAYS = ["well"] * 4 + ["long", "exit", "kill", "raise", "leave"]


def way(number: int) -> str:
    """How the first attempt ends; later ones end well."""
    return Random(number).choice(WAYS)


def compute(job: Job, number: int) -> dict[str, Any]:
    journal = Journal(Path(os.environ[PLACE]) / f"child.{os.getpid()}.journal")
    how = way(number) if job.attempt == 1 else "well"
    about = {"job": str(job.id), "n": job.attempt, "worker": os.getppid()}
    journal.write("computes", **about, how=how)
    if how == "long":
        time.sleep(60)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("as written")
    if how == "leave":
        raise SystemExit(1)
    until = time.monotonic() + Random(number).choice([0.0, 0.05, 0.3])
    while time.monotonic() < until:
        pass
    token = uuid4().hex
    journal.write("computed", **about, token=token)
    journal.close()
    return {"token": token}


def children(pid: int) -> list[int]:
    """The processes for handlers that a worker has."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [child for child in map(int, file.read_text().split()) if is_child(child)]
        except OSError:
            continue
    return found


def is_child(pid: int) -> bool:
    """Whether it lives, and is a process for handlers."""
    try:
        return b"flowrun.worker.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
