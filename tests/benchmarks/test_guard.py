"""What things cost, held exactly: so many statements and commits, whatever else the machine is busy with.

A statement outside of a transaction is one commit; one inside shows a ``begin`` and a ``commit`` besides.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.sides import FloorSide, FlowrunSide, Side
from benchmarks.work import flat
from flowrun import Flowrun
from flowrun.client import notify
from flowrun.store.statement import Statements, names

Sent = Callable[[], Awaitable[Counter[str]]]

_CONSTANT = re.compile(r"\$\d+|\bnull\b|\b\d+(\.\d+)?\b|'[^']*'|\s+")
_DRIVER = ("with recursive", "select set_config", "select current_setting", "select number,")
"""asyncpg looks types up, once a connection; connections are not what is counted here."""


def _beginning(query: str) -> str:
    return _CONSTANT.sub("", query)[:350]


_NAMES = {_beginning(Statements()[name]): name for name in names()}


@pytest.fixture
async def sent(connection) -> Sent:
    """What was sent to this database so far, by the name of its file, else by its first two words."""
    await connection.execute("create extension if not exists pg_stat_statements")
    query = (
        "select query, calls from pg_stat_statements s join pg_database d on d.oid = s.dbid"
        " where d.datname = current_database() and query not like '%pg_stat_statements%'"
    )

    async def counted() -> Counter[str]:
        found: Counter[str] = Counter()
        for text, calls in await connection.fetch(query):
            words = " ".join(text.lower().split()[:2])
            if not words.startswith(_DRIVER):
                found[_NAMES.get(_beginning(text), words)] += calls
        return found

    return counted


async def test_a_dispatch_is_one_statement(dsn: str, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs it is of, and also for a flow, until a flow is large enough for `copy`. Who dispatches more than
    now and then wakes others by a second one."""
    app = Flowrun(dsn)

    @app.handler
    async def nothing() -> None: ...

    async def cost(dispatch: Callable[[], Awaitable[object]]) -> dict[str, int]:
        before = await sent()
        await dispatch()
        await app.client.notifier.flush()
        return dict(await sent() - before)

    def fan(width: int):
        flow = app.flow("fan")
        root = flow.add(nothing.job())
        flow.group(*[nothing.job() for _ in range(width)], after=root)
        return flow

    async with app:
        monkeypatch.setattr(notify, "QUIET", 0.0)
        assert await cost(nothing.dispatch) == {"insert_job": 1}
        assert await cost(lambda: app.dispatch_many([nothing.job() for _ in range(3_000)])) == {"insert_jobs": 1}
        small = await cost(fan(100).dispatch)
        assert list(small.values()) == [1], small
        monkeypatch.setattr(notify, "QUIET", 3_600.0)
        assert await cost(nothing.dispatch) == {"insert_job": 1, "wake": 1}
        small = await cost(fan(100).dispatch)
        assert small["wake"] == 1
        assert sum(small.values()) == 2, small
        large = await cost(fan(3_000).dispatch)
    assert large["begin"] == large["commit"] == large["wake"] == 1
    assert sum(large.values()) == 9, large  # the jobs in two: those that are like most, and the others


async def _quiet(sent: Sent) -> bool:
    before = await sent()
    await asyncio.sleep(0.3)
    return await sent() == before


@pytest.mark.parametrize("jobs", [1, 300])
async def test_jobs_that_end_together_are_one_settle(dsn: str, connection, sent: Sent, until, jobs: int) -> None:
    """And so one durable commit. All run at once here, and end at once; claims do not grow with the jobs either."""
    app = Flowrun(dsn, lease=3_600.0, poll=3_600.0)
    go, running = asyncio.Event(), Counter[str]()

    @app.handler
    async def wait() -> None:
        running["now"] += 1
        await go.wait()

    async with app:
        await app.dispatch_many([wait.job() for _ in range(jobs)])
        before = await sent()
        async with app.worker(concurrency=jobs):
            await until(lambda: running["now"] == jobs)
            await until(lambda: _quiet(sent))  # what a worker looks at when it starts is over
            claimed = await sent()
            assert (claimed - before)["claim"] <= 6  # those that look whether there is more included
            go.set()

            async def finished() -> bool:
                return await connection.fetchval("select count(*) from flowrun.finished") == jobs

            await until(finished)
            settled = await sent() - claimed
    settle = "settle_one" if jobs == 1 else "settle"
    assert settled[settle] == 1
    assert settled["claim"] <= 6
    assert set(settled) <= {settle, "claim", "select count(*)"}, settled


async def test_a_chain_is_one_statement_a_step(dsn: str, connection, sent: Sent, until) -> None:
    """A settle hands the next step straight over: no claim, no wake, nothing else. The end of the flow is a step."""
    app = Flowrun(dsn, lease=3_600.0, poll=3_600.0)

    @app.handler
    async def step() -> None: ...

    async with app.worker():
        await (await step.dispatch()).result(timeout=30)
        before = await sent()
        flow = await app.chain(*[step.job() for _ in range(20)]).dispatch()

        async def over() -> bool:
            return bool(await connection.fetchval("select true from flowrun.finished where id = $1", flow.id))

        await until(over)
        cost = await sent() - before
    assert cost["settle_one"] == 21
    assert cost["claim"] <= 3  # the wake of the dispatch, and whether there is more
    assert "begin" not in cost


async def test_a_worker_is_ready_before_its_first_job(dsn: str, sent: Sent, until) -> None:
    """The first job waits neither for a plan of what settles it, nor with the event loop for an import."""
    app = Flowrun(dsn)
    app.handler("step")(lambda: None)
    loaded = "import sys, flowrun.registry as r; r.load_validation(); print('pydantic.type_adapter' in sys.modules)"
    before = await sent()
    async with app.worker():

        async def planned() -> bool:
            return {"settle", "settle_one", "inputs"} <= set(await sent() - before)

        await until(planned)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", loaded, stdout=asyncio.subprocess.PIPE)
    assert (await child.communicate())[0].strip() == b"True"


async def test_python_spends_no_more_than_a_few_times_the_floor(dsn: str) -> None:
    """CPU time of this process, the best of three each: a busy machine makes both slower. Twice is usual."""
    work = flat(3_000)

    async def best(make: Callable[[str], Side]) -> float:
        times = []
        side = make(dsn)
        async with side.opened():
            for _ in range(3):
                await side.dispatch(work)
                before = time.process_time()
                async with side.worker(100):
                    await side.drained(work)
                    times.append(time.process_time() - before)
        return min(times)

    ours, floor = await best(FlowrunSide), await best(FloorSide)
    assert ours < 6 * floor, f"{ours / work.jobs * 1e6:.1f} us a job; the floor {floor / work.jobs * 1e6:.1f}"
