"""Storing work, with no worker about."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from benchmarks import servers
from benchmarks.contest import Contest, Figure, Goal
from benchmarks.floor import store
from benchmarks.sides import FloorSide, FlowrunSide
from benchmarks.work import Work, flat, layered

DISPATCHERS = 32
ARGS = b'{"order_id":1}'


def contests(dsn: str, scale: float) -> list[Contest]:
    """One by one, in bulk, a large DAG, and many dispatchers at once."""
    single = max(2, round(1_000 * scale))
    side_by_side = max(1, round(200 * scale)) * DISPATCHERS
    bulk = flat(max(2, round(10_000 * scale)))
    dags = [layered(max(2, round(layers * scale)), 100) for layers in (100, 1_000)]
    return [
        Contest(
            "one by one",
            partial(_flowrun_single, dsn, single, 1),
            partial(_floor_single, dsn, single, 1),
            [Figure("rate", "jobs/s")],
            against="insert",
        ),
        Contest(
            f"{DISPATCHERS} dispatchers at once",
            partial(_flowrun_single, dsn, side_by_side, DISPATCHERS),
            partial(_floor_single, dsn, side_by_side, DISPATCHERS),
            [Figure("rate", "jobs/s", goal=Goal(0.7, at_least=True))],
            against="insert",
        ),
        Contest(
            f"dispatch_many of {bulk.jobs:,}",
            partial(_flowrun_bulk, dsn, bulk),
            partial(_copy, dsn, bulk),
            [Figure("rate", "jobs/s")],
            against="copy",
        ),
        *(_dag(dsn, dag) for dag in dags),
        Contest(
            f"memory for a DAG of {dags[1].jobs:,} nodes",
            partial(_memory, dsn, dags[1]),
            None,
            [
                Figure("written", "bytes", "a node, written"),
                Figure("peak", "bytes", "a node, at most while dispatched", goal=Goal(1_024.0, of_flowrun=True)),
            ],
            once=True,
        ),
    ]


def _dag(dsn: str, dag: Work) -> Contest:
    figures = [
        Figure("rate", "nodes/s", goal=Goal(0.7, at_least=True)),
        Figure("written_rate", "nodes/s", "flow.add() included"),
    ]
    if dag.jobs >= 100_000:
        figures.append(Figure("rate", "nodes/s", "itself", goal=Goal(100_000.0, at_least=True, of_flowrun=True)))
    return Contest(
        f"layered DAG, {dag.jobs:,} nodes, {len(dag.edges):,} edges",
        partial(_flowrun_flow, dsn, dag),
        partial(_copy, dsn, dag),
        figures,
        against="copy",
    )


async def _flowrun_single(dsn: str, jobs: int, dispatchers: int) -> dict[str, float]:
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database, pool_size=dispatchers)
        async with side.opened():

            async def dispatch() -> object:
                return await side.noop.dispatch(order_id=1)

            return {"rate": await _rate(dispatch, jobs, dispatchers)}


async def _floor_single(dsn: str, jobs: int, dispatchers: int) -> dict[str, float]:
    async with servers.fresh_database(dsn) as database, AsyncExitStack() as stack:
        side = FloorSide(database)
        await stack.enter_async_context(side.opened())
        free = []
        for _ in range(dispatchers):
            connection = await store.connect(database)
            stack.callback(connection.terminate)
            free.append(await connection.prepare(store.SQL["insert"]))

        async def dispatch() -> None:
            statement = free.pop()
            await statement.fetch(store.new_ids(1)[0], store.QUEUE, "noop", ARGS)
            free.append(statement)

        return {"rate": await _rate(dispatch, jobs, dispatchers)}


async def _rate(dispatch: Callable[[], Awaitable[object]], jobs: int, dispatchers: int) -> float:
    async def one(share: int) -> None:
        for _ in range(share):
            await dispatch()

    await asyncio.gather(*(one(5) for _ in range(dispatchers)))
    start = time.perf_counter()
    await asyncio.gather(*(one(jobs // dispatchers) for _ in range(dispatchers)))
    return jobs / (time.perf_counter() - start)


async def _flowrun_bulk(dsn: str, work: Work) -> dict[str, float]:
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        async with side.opened():
            await side.noop.dispatch(order_id=1)
            await servers.tidy(database, analyze=False)
            specs = [side.noop.job(order_id=1) for _ in range(work.jobs)]
            start = time.perf_counter()
            await side.app.dispatch_many(specs)
            return {"rate": work.jobs / (time.perf_counter() - start)}


async def _flowrun_flow(dsn: str, work: Work) -> dict[str, float]:
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        async with side.opened():
            await side.noop.dispatch(order_id=1)
            await servers.tidy(database, analyze=False)
            begin = time.perf_counter()
            flow = side.flow(work)
            start = time.perf_counter()
            await flow.dispatch()
            end = time.perf_counter()
            return {"rate": work.jobs / (end - start), "written_rate": work.jobs / (end - begin)}


async def _copy(dsn: str, work: Work) -> dict[str, float]:
    """The floor's rows for the same work: ids, counting of parents and `copy`, in one transaction."""
    async with servers.fresh_database(dsn) as database:
        side = FloorSide(database)
        async with side.opened():
            await store.insert(side.connection, Work(1))
            await servers.tidy(database, analyze=False)
            start = time.perf_counter()
            await store.insert(side.connection, work)
            rate = work.jobs / (time.perf_counter() - start)
            return {"rate": rate, "written_rate": rate}


async def _memory(dsn: str, work: Work) -> dict[str, float]:
    """What Python allocates for a flow, by tracemalloc."""
    async with servers.fresh_database(dsn) as database:
        side = FlowrunSide(database)
        async with side.opened():
            await side.flow(layered(2, 100)).dispatch()
            tracemalloc.start()
            try:
                flow = side.flow(work)
                written, _ = tracemalloc.get_traced_memory()
                await flow.dispatch()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    return {"written": written / work.jobs, "peak": peak / work.jobs}
