"""What a limit costs: the same no-op jobs drained from a backlog with limits and without, in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.contest import Contest, Figure, Goal
from benchmarks.sides import FlowrunSide, drain_backlog
from benchmarks.work import Work, flat

CONCURRENCY = 100


class LimitedSide(FlowrunSide):
    """flowrun, with a queue that has limits, or jobs that ask for them."""

    def __init__(self, dsn: str, *, options: Callable[[int], dict[str, Any]] | None = None, **limits: Any) -> None:
        super().__init__(dsn)
        self._options = options
        if limits:
            self.app.queue("default", **limits)

    async def dispatch(self, work: Work) -> None:
        self._tally.expect(work.jobs)
        specs = [self.noop.job(order_id=1) for _ in range(work.jobs)]
        if self._options is not None:
            specs = [spec.options(**self._options(number)) for number, spec in enumerate(specs)]
        await self.app.dispatch_many(specs)


def contests(dsn: str, scale: float) -> list[Contest]:
    """20,000 jobs under limits that never bind, that are just what the worker has, and that bind."""
    work = flat(max(1, round(20_000 * scale)))
    asked: dict[str, partial[LimitedSide]] = {
        "queue, concurrency 100,000": partial(LimitedSide, concurrency=100_000),
        "queue, rate 1,000,000 in 1 s": partial(LimitedSide, rate=(1_000_000, 1.0)),
        "one key, limit 1,000": partial(LimitedSide, options=lambda _: {"limit": ("k", 1000)}),
        "50 keys, limit 1,000": partial(LimitedSide, options=lambda n: {"limit": (f"k{n % 50}", 1000)}),
        "fair_key, 50 of them": partial(LimitedSide, options=lambda n: {"fair_key": f"k{n % 50}"}),
        "queue, concurrency 100": partial(LimitedSide, concurrency=100),
        "one key, limit 100": partial(LimitedSide, options=lambda _: {"limit": ("k", 100)}),
        "50 keys, limit 5": partial(LimitedSide, options=lambda n: {"limit": (f"k{n % 50}", 5)}),
        "200 sequences": partial(LimitedSide, options=lambda n: {"sequence": f"k{n % 200}"}),
    }
    return [
        Contest(
            f"{work.jobs:,} no-op jobs, {name}",
            partial(drain_backlog, side, dsn, work, concurrency=CONCURRENCY, vacuum=True),
            partial(drain_backlog, FlowrunSide, dsn, work, concurrency=CONCURRENCY, vacuum=True),
            [Figure("rate", "jobs/s", goal=Goal(0.67, at_least=True)), Figure("cpu_us", "us", "Python CPU a job")],
            against="unlimited",
        )
        for name, side in asked.items()
    ]
