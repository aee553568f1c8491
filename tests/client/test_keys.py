"""Keys: a dispatch that was made already is found, not made again."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from flowrun import ConfigurationError, DuplicateKey, Flowrun, InvalidFlow, NotFound, mint
from flowrun.core.plan import KeyRow
from flowrun.store import insert, keys
from flowrun.store.callers import AsyncpgCaller
from flowrun.store.statement import Statements
from tests.model import invariants
from tests.store.stage import deadlocks, until_waiting


@pytest.fixture
def echo(app: Flowrun) -> Any:
    @app.handler
    async def echo(n: Any = 0) -> Any:
        return n

    return echo


@pytest.fixture(autouse=True)
async def consistent(connection: asyncpg.Connection):
    """Whatever a test did, what it leaves in the database obeys the invariants."""
    yield
    await invariants.check(connection, at_rest=False)


def order(app: Flowrun, echo: Any, n: int = 0, *, size: int = 2, **options: Any) -> Any:
    flow = app.flow("order", **options)
    first = flow.add(echo.job(n=n), name="first")
    for number in range(1, size):
        flow.add(echo.job(n=first.result), name=f"then-{number}")
    inner = app.flow("inner")
    inner.add(echo.job(n=n).options(delay=0.01), name="step")
    flow.add(inner, after=first)
    return flow


async def count(connection: asyncpg.Connection, table: str) -> int:
    return await connection.fetchval(f"select count(*) from flowrun.{table}")


async def test_the_second_finds_the_first_while_it_waits_and_long_after(app, echo, connection) -> None:
    async with app:
        first = await echo.job(n=1).options(key="k").dispatch()
        second = await echo.job(n=2).options(key="k").dispatch()
        assert (first.duplicate, second.duplicate, second.id) == (False, True, first.id)
        assert (await echo.job(n=3).options(key="other").dispatch()).duplicate is False
        assert (await echo.job(n=4).dispatch()).duplicate is False
    async with app.worker(concurrency=1):
        assert await second.result(timeout=10) == 1
        third = await echo.job(n=5).options(key="k").dispatch()
        assert (third.duplicate, third.id, await third.result(timeout=10)) == (True, first.id, 1)
    assert await count(connection, "jobs") == 3


async def test_a_key_belongs_to_a_type_and_a_flow_to_its_name(app, echo) -> None:
    @app.handler
    async def other() -> None: ...

    async with app:
        job = await echo.job(n=1).options(key="k").dispatch()
        assert not (await other.job().options(key="k").dispatch()).duplicate
        assert not (await order(app, echo, key="k").dispatch()).duplicate
        named = app.flow("another", key="k")
        named.add(echo.job())
        assert not (await named.dispatch()).duplicate
        assert (await app.job("echo", {"n": 1}, key="k").dispatch()).id == job.id


@pytest.mark.parametrize("size", [2, insert.COPY_FROM + 1])
async def test_a_flow_is_found_with_its_nodes(app, echo, connection, size) -> None:
    async with app.worker(concurrency=2):
        first = await order(app, echo, 1, size=size, key="order-42", queue="default").dispatch()
        stored = await count(connection, "jobs")
        again = await order(app, echo, 2, size=size, key="order-42").dispatch()
        assert (first.duplicate, again.duplicate, again.id) == (False, True, first.id)
        assert await count(connection, "jobs") == stored
        for name in ("first", "then-1", "inner", "inner/step"):
            assert again[name].id == first[name].id
        assert await again["first"].result(timeout=20) == 1
        assert (await again.wait(timeout=20)).state == "succeeded"


async def test_fifty_dispatch_the_same_flow_at_the_same_moment(dsn, connection) -> None:
    apps = [Flowrun(dsn, pool_size=5) for _ in range(5)]
    for app in apps:
        await app.__aenter__()
    flows = []
    for number in range(50):
        flow = apps[number % 5].flow("order", key="order-42")
        flow.chain([apps[number % 5].job("step", {"n": number})] * 5)
        flows.append(flow)
    runs = await asyncio.gather(*(flow.dispatch() for flow in flows))
    for app in apps:
        await app.__aexit__()
    assert len({run.id for run in runs}) == 1
    assert len({run["step"].id for run in runs}) == 1
    assert sorted(run.duplicate for run in runs) == [False] + [True] * 49
    assert (await count(connection, "flows"), await count(connection, "jobs")) == (1, 6)


async def test_many_with_the_same_keys_in_another_order_at_the_same_moment(dsn, connection) -> None:
    """Keys are taken in one order, whatever the caller's: no deadlock, each key once."""
    before = await deadlocks(dsn, connection)
    app = Flowrun(dsn, pool_size=10)
    async with app:
        names = [f"k{n}" for n in range(40)]
        calls = [names[turn:] + names[:turn] for turn in range(10)]
        calls += [list(reversed(call)) for call in calls]
        results = await asyncio.gather(
            *(app.dispatch_many([app.job("step", key=name) for name in call]) for call in calls)
        )
    ids: dict[str, set[UUID]] = {}
    for call, runs in zip(calls, results, strict=True):
        for name, run in zip(call, runs, strict=True):
            ids.setdefault(name, set()).add(run.id)
    assert all(len(same) == 1 for same in ids.values())
    assert sum(not run.duplicate for runs in results for run in runs) == 40
    assert await count(connection, "jobs") == 40
    assert await deadlocks(dsn, connection) == before


async def test_many_with_and_without_keys_come_back_in_their_order(app, echo, connection) -> None:
    async with app.worker(concurrency=4):
        old = await echo.job(n="old").options(key="b").dispatch()
        specs = [
            echo.job(n=0),
            echo.job(n=1).options(key="a"),
            echo.job(n=2).options(key="b"),
            echo.job(n=3).options(key="a"),
            echo.job(n=4),
            echo.job(n=5).options(key="a", on_conflict="replace"),
        ]
        runs = await app.dispatch_many(specs)
        assert [run.duplicate for run in runs] == [False, False, True, True, False, True]
        assert runs[2].id == old.id
        assert runs[1].id == runs[3].id == runs[5].id
        assert [await run.result(timeout=10) for run in runs] == [0, 1, "old", 1, 4, 1]
    assert await count(connection, "jobs") == 4


async def test_raise_names_the_first_and_writes_nothing(app, echo, connection) -> None:
    async with app:
        job = await echo.job(n=1).options(key="k").dispatch()
        flow = await order(app, echo, key="k").dispatch()
        before = [await count(connection, table) for table in ("jobs", "flows", "keys")]
        with pytest.raises(DuplicateKey, match=f"job echo with key 'k' was dispatched already: {job.id}") as error:
            await echo.job(n=2).options(key="k", on_conflict="raise").dispatch()
        assert (error.value.key, error.value.id) == ("k", job.id)
        with pytest.raises(DuplicateKey, match=f"flow order with key 'k' .*{flow.id}"):
            await order(app, echo, key="k", on_conflict="raise").dispatch()
        with pytest.raises(DuplicateKey, match=str(job.id)):
            await app.dispatch_many(
                [echo.job(n=3), echo.job().options(key="new"), echo.job().options(key="k", on_conflict="raise")]
            )
        with pytest.raises(DuplicateKey, match="'twice'"):
            await app.dispatch_many([echo.job().options(key="twice", on_conflict="raise")] * 2)
        assert [await count(connection, table) for table in ("jobs", "flows", "keys")] == before
        assert not (await echo.job().options(key="new", on_conflict="raise").dispatch()).duplicate


# Replacing


@pytest.mark.parametrize("delay", [0.0, 3600.0])
async def test_a_job_that_has_not_started_is_replaced(app, echo, connection, delay) -> None:
    async with app:
        old = await echo.job(n=1).options(key="k", delay=delay or None).dispatch()
        new = await echo.job(n=2).options(key="k", on_conflict="replace").dispatch()
        assert not new.duplicate
        assert new.id != old.id
        with pytest.raises(NotFound):
            await old.status()
        assert await count(connection, "jobs") == await count(connection, "keys") == 1
    async with app.worker(concurrency=1):
        assert await new.result(timeout=10) == 2
        late = await echo.job(n=3).options(key="k", on_conflict="replace").dispatch()
        assert (late.duplicate, late.id) == (True, new.id)


async def test_a_flow_that_has_not_started_is_replaced_as_a_whole(app, echo, connection) -> None:
    async with app:
        old = await order(app, echo, 1, key="k").dispatch()
        other = await order(app, echo, 1, key="other").dispatch()
        new = await order(app, echo, 2, key="k", on_conflict="replace").dispatch()
        assert not new.duplicate
        assert await connection.fetchval("select count(*) from flowrun.jobs where id = $1", old.id) == 0
        assert await count(connection, "flows") == 4
        assert await count(connection, "edges") == 2 * await connection.fetchval(
            "select count(*) from flowrun.edges e join flowrun.jobs j on j.id = e.child_id "
            "where j.id = $1 or j.flow_id in (select id from flowrun.flows where root_id = $1)",
            other.id,
        )
    async with app.worker(concurrency=2):
        assert await new["first"].result(timeout=10) == 2
        assert (await new.wait(timeout=10)).state == "succeeded"
        late = await order(app, echo, 3, key="k", on_conflict="replace").dispatch()
        assert (late.duplicate, late.id, late["first"].id) == (True, new.id, new["first"].id)
        assert (await other.wait(timeout=10)).state == "succeeded"


async def test_what_has_started_is_not_replaced(app, echo, until) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    @app.handler(attempts=3)
    async def slow(fail: bool = False) -> str:
        started.set()
        await release.wait()
        if fail:
            raise ValueError("again")
        return "done"

    def flow() -> Any:
        flow = app.flow("f", key="k", on_conflict="replace")
        flow.chain(slow.job(), echo.job(n=1))
        return flow

    async with app.worker(concurrency=2):
        run = await flow().dispatch()
        await asyncio.wait_for(started.wait(), 10)
        again = await flow().dispatch()
        assert (again.duplicate, again.id) == (True, run.id)
        release.set()
        assert await again.result(timeout=10) == 1
        # An attempt was used, and it waits for the next: neither claimed nor finished, but started.
        from flowrun import backoff

        failing = slow.job(fail=True).options(key="k", on_conflict="replace", backoff=backoff.constant(600.0))
        first = await failing.dispatch()

        async def is_scheduled() -> bool:
            return (await first.status()).state == "scheduled"

        await until(is_scheduled)
        assert (await failing.dispatch()).id == first.id


async def test_of_many_who_replace_the_last_one_stays(dsn, connection) -> None:
    app = Flowrun(dsn, pool_size=10)
    async with app:
        runs = await asyncio.gather(
            *(app.job("step", {"n": n}, key="k", on_conflict="replace").dispatch() for n in range(40))
        )
    assert not any(run.duplicate for run in runs)
    assert len({run.id for run in runs}) == 40
    (stays,) = await connection.fetch("select id from flowrun.jobs")
    assert await connection.fetchval("select id from flowrun.keys") == stays[0]


@pytest.mark.parametrize("commits", [True, False])
async def test_a_claim_under_way_is_waited_for(app, echo, dsn, connection, commits) -> None:
    """The claim has deleted the row and not committed: who replaces waits, and then sees whether it has started."""
    async with app:
        old = await echo.job(n=1).options(key="k").dispatch()
        claiming, replacing = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        transaction = claiming.transaction()
        await transaction.start()
        await claiming.execute("delete from flowrun.ready where id = $1", old.id)
        await claiming.execute(
            "insert into flowrun.leases (worker_id, n, jobs, attempts) values (gen_random_uuid(), 1, array[$1::uuid], '{1}')",
            old.id,
        )
        second = asyncio.create_task(echo.job(n=2).options(key="k", on_conflict="replace").dispatch(tx=replacing))
        await until_waiting(connection, replacing)
        await (transaction.commit() if commits else transaction.rollback())
        run = await second
        assert run.duplicate is commits
        assert (run.id == old.id) is commits
        await claiming.close()
        await replacing.close()
    await connection.execute("delete from flowrun.leases")
    if commits:
        await connection.execute("delete from flowrun.jobs")


async def test_a_job_that_becomes_due_meanwhile_is_found_where_it_went(app, echo, dsn, connection) -> None:
    """From `scheduled` to `ready`, committed while who replaces waits for its row."""
    async with app:
        old = await echo.job(n=1).options(key="k", delay=3600.0).dispatch()
        moving, replacing = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        transaction = moving.transaction()
        await transaction.start()
        await moving.execute("delete from flowrun.scheduled where id = $1", old.id)
        await moving.execute(
            "insert into flowrun.ready (queue, priority, id, type) values ('default', 5, $1, 'echo')", old.id
        )
        second = asyncio.create_task(echo.job(n=2).options(key="k", on_conflict="replace").dispatch(tx=replacing))
        await until_waiting(connection, replacing)
        await transaction.commit()
        run = await second
        assert not run.duplicate
        assert await connection.fetchval("select array_agg(id) from flowrun.jobs") == [run.id]
        await moving.close()
        await replacing.close()


# How long a key is held


async def test_without_a_ttl_a_key_is_held_as_long_as_the_job_is_stored(app, echo, connection) -> None:
    async with app:
        job = await echo.job(n=1).options(key="k").dispatch()
        flow = await order(app, echo, key="k").dispatch()
        await forget(connection)
        for number in range(2):
            one = await echo.job(n=2).options(key="k").dispatch()
            two = await order(app, echo, key="k").dispatch()
            assert one.duplicate is two.duplicate is bool(number)
            assert one.id != job.id
            assert two.id != flow.id


async def forget(connection: asyncpg.Connection) -> None:
    """As pruning does."""
    await connection.execute(
        "truncate flowrun.jobs, flowrun.flows, flowrun.edges, flowrun.blocked, flowrun.ready, flowrun.scheduled, "
        "flowrun.finished"
    )


async def test_with_a_ttl_a_key_outlives_its_job(app, echo, connection) -> None:
    async with app:
        job = await echo.job(n=1).options(key="k", key_ttl=3600.0).dispatch()
        flow = await order(app, echo, key="k", key_ttl=3600.0).dispatch()
        await forget(connection)
        for on_conflict in ("existing", "replace"):
            again = await echo.job(n=2).options(key="k", on_conflict=on_conflict).dispatch()
            assert (again.duplicate, again.id) == (True, job.id)
            same = await order(app, echo, key="k", on_conflict=on_conflict).dispatch()
            assert (same.duplicate, same.id) == (True, flow.id)
        with pytest.raises(NotFound):
            await again.status()
        with pytest.raises(NotFound):
            same["first"]


async def test_a_ttl_ends_and_frees_the_key(app, echo, connection) -> None:
    async with app:
        first = await echo.job(n=1).options(key="k", key_ttl=0.2).dispatch()
        held = await connection.fetchval("select expires_at - clock_timestamp() from flowrun.keys")
        assert 0 < held.total_seconds() <= 0.2
        while await connection.fetchval("select expires_at > clock_timestamp() from flowrun.keys"):
            await asyncio.sleep(0.01)
        second = await echo.job(n=2).options(key="k", on_conflict="raise").dispatch()
        assert not second.duplicate
        assert second.id != first.id
        assert (await echo.job(n=3).options(key="k").dispatch()).id == second.id


async def test_fifty_who_want_a_key_that_is_free_again(dsn, connection) -> None:
    """The job is gone, the key's row is there: one takes it, the others find that one."""
    app = Flowrun(dsn, pool_size=10)
    async with app:
        for _ in range(5):
            await app.job("step", key="k").dispatch()
            await forget(connection)
            runs = await asyncio.gather(*(app.job("step", key="k").dispatch() for _ in range(50)))
            assert len({run.id for run in runs}) == 1
            assert sum(not run.duplicate for run in runs) == 1
            assert await count(connection, "jobs") == 1


# Transactions that end late


@pytest.mark.parametrize("commits", [True, False])
async def test_who_wants_a_key_waits_for_the_transaction_that_has_it(app, echo, dsn, connection, commits) -> None:
    one, two = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    transaction = one.transaction()
    await transaction.start()
    first = await order(app, echo, 1, key="k").dispatch(tx=one)
    waiting = asyncio.create_task(order(app, echo, 2, key="k").dispatch(tx=two))
    await until_waiting(connection, two)
    await (transaction.commit() if commits else transaction.rollback())
    second = await waiting
    assert second.duplicate is commits
    assert (second.id == first.id) is commits
    assert await count(connection, "flows") == 2
    await one.close()
    await two.close()


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
async def test_cut_while_it_waits_it_leaves_nothing_on_the_pools_connection(dsn, connection, until, how) -> None:
    app = Flowrun(dsn, pool_size=1)
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    first = await app.job("step", key="k").dispatch(tx=other)

    async def waits() -> bool:
        return await connection.fetchval(
            "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )

    async with app:
        if how == "asyncio":
            waiting = asyncio.create_task(app.job("step", key="k", key_ttl=60.0).dispatch())
            await until(waits)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(app.job("step", key="k", key_ttl=60.0).dispatch)
                await until(waits)
                group.cancel_scope.cancel()
        async with app.client.database.acquire() as pooled:
            assert not pooled.is_in_transaction()
        assert not (await app.job("step", key="another").dispatch()).duplicate
        await transaction.commit()
        assert (await app.job("step", key="k").dispatch()).id == first.id
    await other.close()
    assert await count(connection, "jobs") == 2


async def test_sent_again_it_is_no_duplicate_of_itself(connection) -> None:
    """After an ambiguous commit the same rows are sent once more."""
    sql, id = Statements(), mint.job_id()
    caller = AsyncpgCaller(connection, _open)
    for on_conflict in ("existing", "replace", "raise"):
        for _ in range(3):
            assert await keys.take(caller, sql, [KeyRow("job:x", on_conflict, id, on_conflict, 60.0)]) == {}


def _open() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("size", [2, insert.COPY_FROM + 1])
async def test_a_dispatch_whose_commit_was_not_answered(app, echo, connection, monkeypatch, size) -> None:
    """The connection is lost right after the commit: it is sent again, writes nothing twice, and is no duplicate."""
    commits = 0

    class Cut(AsyncpgCaller):
        async def fetch(self, statement: str, *args: Any) -> Any:
            nonlocal commits
            answer = await super().fetch(statement, *args)
            if statement == "commit":
                commits += 1
                if commits == 1:
                    raise OSError("the connection was cut after the commit")
            return answer

    monkeypatch.setattr("flowrun.client.writing.AsyncpgCaller", Cut)
    async with app:
        run = await order(app, echo, size=size, key="k", on_conflict="raise").dispatch()
        assert commits == 2
        assert not run.duplicate
        assert await connection.fetchval("select id from flowrun.keys") == run.id
        assert await count(connection, "flows") == 2
        commits = 0
        job = await echo.job(n=1).options(key="k", on_conflict="replace").dispatch()
        assert not job.duplicate


# What is refused, and what costs nothing


async def test_a_key_inside_a_flow_is_refused_with_the_node_named(app, echo) -> None:
    @app.handler(key="always")
    async def single() -> None: ...

    async with app:
        for spec in (echo.job().options(key="k"), single.job()):
            flow = app.flow("f")
            flow.add(spec, name="this one")
            with pytest.raises(InvalidFlow, match="node 'this one' has a key=.*app.flow"):
                await flow.dispatch()
        outer, inner = app.flow("outer"), app.flow("inner", key="k")
        inner.add(echo.job())
        outer.add(inner, name="nested")
        with pytest.raises(InvalidFlow, match="node 'nested' of flow 'outer' has a key="):
            await outer.dispatch()
        assert (await single.dispatch()).id == (await single.dispatch()).id  # alone, the handler's default holds


async def test_what_is_no_key_is_refused(app, echo) -> None:
    with pytest.raises(ConfigurationError, match="key= must be a text of 1 to 500 characters"):
        app.flow("f", key="")
    with pytest.raises(ConfigurationError, match="on_conflict= must be 'existing', 'replace' or 'raise'"):
        echo.job().options(key="k", on_conflict="ignore")
    with pytest.raises(ConfigurationError, match="key_ttl= must be"):
        echo.job().options(key="k", key_ttl=0)


async def test_the_longest_key_under_the_longest_name(app, echo) -> None:
    async with app:
        for key in ("k" * 500, "📮" * 450):
            flow = app.flow("📮" * 200, key=key)
            flow.add(echo.job())
            assert not (await flow.dispatch()).duplicate
            assert (await flow.dispatch()).duplicate


async def test_without_a_key_nothing_is_asked_about_keys(app, echo, connection) -> None:
    async with app:
        await connection.execute("drop table flowrun.keys cascade")
        await echo.dispatch(n=1)
        await app.dispatch_many([echo.job(n=1), echo.job(n=2)])
        await order(app, echo).dispatch()


async def test_an_option_for_writing_at_once(app, echo) -> None:
    async with app:
        assert not (await echo.job(n=1).dispatch(now=True)).duplicate
        assert not (await order(app, echo).dispatch(now=True)).duplicate
        assert len(await app.dispatch_many([echo.job(n=1)], now=True)) == 1
