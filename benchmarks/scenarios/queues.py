"""The same jobs in one queue and in many, worked by one process."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial

from benchmarks.contest import Contest, Figure
from benchmarks.sides import FlowrunSide, drain_backlog
from benchmarks.work import Work, flat


class ManyQueues(FlowrunSide):
    """flowrun: the jobs go round ``queues``, and the worker takes from all of them."""

    def __init__(self, dsn: str, queues: int) -> None:
        super().__init__(dsn)
        self._names = [f"queue-{number}" for number in range(queues)]

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        names = self._names
        specs = [self.noop.job(order_id=1).options(queue=names[at % len(names)]) for at in range(work.jobs)]
        await self.app.dispatch_many(specs)

    def worker(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        return self.app.worker(concurrency=concurrency, queues=self._names)


def contests(dsn: str, scale: float) -> list[Contest]:
    """20,000 jobs in 10 and in 100 queues, against one queue."""
    work = flat(max(1, round(20_000 * scale)))
    return [
        Contest(
            f"{work.jobs:,} no-op jobs in {queues} queues",
            partial(drain_backlog, partial(ManyQueues, queues=queues), dsn, work, concurrency=100, vacuum=True),
            partial(drain_backlog, FlowrunSide, dsn, work, concurrency=100, vacuum=True),
            [Figure("rate", "jobs/s")],
            against="one queue",
        )
        for queues in (10, 100)
    ]
