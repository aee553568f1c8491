"""What a no-op job's cost is made of: where Python's CPU time goes, by samples, and PostgreSQL's, by statement."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from types import FrameType

import asyncpg

import flowrun
from benchmarks import servers
from benchmarks.contest import Contest, Figure
from benchmarks.sides import PATIENCE, FlowrunSide, quiet
from benchmarks.work import flat

PACKAGE = PurePath(flowrun.__file__).parent
EACH = 0.001
"""Seconds of CPU time between two samples."""
PYTHON = {
    "asyncpg": "asyncpg: sending, receiving, decoding",
    "claim": "claiming: rows become jobs",
    "settle": "settling: what is sent",
    "consume": "consumers: a job is taken, its handler called, its result encoded",
    "handler": "the handler itself",
    "rest": "event loop, and the rest",
}
_FILES = {
    "claim": {"claimer.py", "claim.py", "intake.py", "attempt.py", "buffer.py", "limited.py", "wake.py"},
    "settle": {"settler.py", "settle.py", "finish.py", "session.py"},
    "consume": {"consumer.py", "run.py", "registry.py", "codec.py", "context.py", "services.py", "outcome.py"},
}
SERVER = {
    "pg_insert": ("dispatching in bulk", "%insert into%.jobs%"),
    "pg_claim": ("claim", "%skip locked%leases%"),
    "pg_settle": ("settle", "with held%"),
}
_SPENT = "select coalesce(sum(total_exec_time), 0)::float8 from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = current_database() and query like $1"


def contests(dsn: str, scale: float) -> list[Contest]:
    """200,000 jobs of flowrun alone."""
    jobs = max(100, round(200_000 * scale))
    figures = [Figure("cpu", "us", "Python, all of it")]
    figures += [Figure(part, "us", f"Python: {text}") for part, text in PYTHON.items()]
    figures += [Figure(part, "us", f"PostgreSQL: {text}") for part, (text, _) in SERVER.items()]
    return [Contest("a no-op job", partial(parts, dsn, jobs), None, figures)]


async def parts(dsn: str, jobs: int) -> dict[str, float]:
    """Microseconds a job, by part. The statements' times hold waiting for the disk and for a core."""
    work, samples = flat(jobs), Counter[str]()
    async with asyncio.timeout(PATIENCE), servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        async with side.opened():
            reader = await asyncpg.connect(database)
            await reader.execute("create extension if not exists pg_stat_statements")
            await side.dispatch(work)
            await servers.tidy(database, analyze=True, vacuum=True)
            with quiet(), _sampled(samples):
                before = time.process_time()
                async with side.worker(100):
                    await side.drained(work)
                    used = (time.process_time() - before) * 1e6 / jobs
            spent = {part: await reader.fetchval(_SPENT, pattern) for part, (_, pattern) in SERVER.items()}
            reader.terminate()
    taken = max(1, samples.total())
    found = {"cpu": used} | {part: used * samples[part] / taken for part in PYTHON}
    return found | {part: milliseconds * 1e3 / jobs for part, milliseconds in spent.items()}


@contextmanager
def _sampled(samples: Counter[str]) -> Iterator[None]:
    """Count where this process is, each millisecond of its CPU time."""

    def look(_: int, frame: FrameType | None) -> None:
        samples[_part(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EACH, EACH)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _part(frame: FrameType | None) -> str:
    """The part that the innermost frame we know belongs to."""
    while frame is not None:
        path = PurePath(frame.f_code.co_filename)
        if "asyncpg" in path.parts:
            return "asyncpg"
        if path.name == "sides.py":
            return "handler"
        if path.is_relative_to(PACKAGE):
            return next((part for part, files in _FILES.items() if path.name in files), "rest")
        frame = frame.f_back
    return "rest"
