"""Jobs as they are: payloads from 100 bytes to 100 kB, one in twenty fails at first and is retried."""

from __future__ import annotations

import logging
from functools import partial

from benchmarks.contest import Contest, Figure
from benchmarks.floor import store
from benchmarks.sides import OK, FloorSide, FlowrunSide, drain_backlog
from benchmarks.work import Work, flat
from flowrun import Job, backoff

FAILS = 20
"""One job in so many fails at its first attempt."""
PAYLOADS = [100] * 90 + [10_000] * 9 + [100_000]
"""Bytes, of a hundred jobs: 2 kB each in the mean."""


class MixedFlowrun(FlowrunSide):
    """flowrun: what fails is retried at once."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        logging.getLogger("flowrun.job").setLevel(logging.ERROR)  # a line a failure is not what is measured
        tally = self._tally

        @self.app.handler("mixed", attempts=3, backoff=backoff.constant(0.0))
        async def mixed(job: Job, number: int, payload: str) -> dict[str, bool]:
            if number % FAILS == 0 and job.attempt == 1:
                raise RuntimeError("as one in twenty does")
            tally.hit()
            return OK

        self.mixed = mixed

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        part = 10_000
        for at in range(0, work.jobs, part):
            numbers = range(at, min(at + part, work.jobs))
            await self.app.dispatch_many([self.mixed.job(number=n, payload="x" * _bytes(n)) for n in numbers])


class MixedFloor(FloorSide):
    """The floor: the same payloads, and nothing fails."""

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        await store.insert(self.connection, work, args=_args)

    async def noop(self, number: int, payload: str) -> dict[str, bool]:  # type: ignore[override]
        self._tally.hit()
        return OK


def contests(dsn: str, scale: float) -> list[Contest]:
    """20,000 jobs; 1,000 of them fail once."""
    work = flat(max(100, round(20_000 * scale)))
    return [
        Contest(
            f"{work.jobs:,} jobs of 100 B to 100 kB, 5 % fail once and are retried",
            partial(drain_backlog, MixedFlowrun, dsn, work, concurrency=100, vacuum=True),
            partial(drain_backlog, MixedFloor, dsn, work, concurrency=100, vacuum=True),
            [Figure("rate", "jobs/s"), Figure("cpu_us", "us", "Python CPU a job")],
            against="floor, no failures",
        )
    ]


def _bytes(number: int) -> int:
    return PAYLOADS[number * 37 % 100]


def _args(number: int) -> bytes:
    return b'{"number":%d,"payload":"%s"}' % (number, b"x" * _bytes(number))
