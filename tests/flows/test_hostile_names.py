"""Names of every kind, made to be misread: accepted ones are data everywhere, refused ones leave nothing written."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import asyncpg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowrun import ConfigurationError, Flowrun, any_of
from flowrun.cli.entry import main
from flowrun.store.pool import Database

EVIL = [
    "'; drop table flowrun.jobs; --", '"; drop schema flowrun cascade; --', "$1", "$$", "$tag$", "%", "_", "%s", "{0}", "\\", "\\%",
    "E'\\''", "null", "NULL", "true", "1", "-1", "--help", "-", "a,b", "{a,b}", '{"a":1}', "[1]", "a/b", "..", "../../etc/passwd",
    "<script>alert(1)</script>", "[red]x[/red]", "[/x]", "\u202eabc", "a\u2066b", "\x85", "\x9b31m", "a\u2028b", "/", "/a", "//", "größe 📮", "e\u0301", "\u00e9", "İ", "ﬀ", "a b",
    "flowrun", "flowrun.end", "key:x", "type:x", "sequence:x", ":", "::", "a\x00b", "a\nb", "\x1f", "x\x1fy", "\x7f", " a", "a ", "\ufeff",
    "\ud800", "", "x" * 200, "x" * 201, "📮" * 200, "📮" * 500, "é" * 255,
]  # fmt: skip
FRESH: dict[str, list[str]] = {}
"""By database: the tables that are empty when it is new."""
HARSH = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("%_\\'\"{}$;-.:/[] \x1f\x00\n", max_size=8)


def accepts(make: Callable[[], object]) -> bool:
    try:
        make()
    except ConfigurationError as error:
        refused = str(error)
    else:
        return True
    assert len(refused) < 500
    return False


def placeable(app: Flowrun, name: str) -> bool:
    """Whether it may name a job's type, a queue, a tag, a flow, a node: all by one rule, which is checked here."""
    answers = {
        accepts(lambda: app.job(name)),
        accepts(lambda: app.job("x", tags=[name])),
        accepts(lambda: app.flow(name)),
        accepts(lambda: app.flow("f").add(app.job("x"), name=name)),
        accepts(lambda: app.flow("f").wait_for(name)),
        accepts(lambda: app.retention(1.0, flow=name)),
    }
    assert len(answers) == 1, name
    (answer,) = answers
    odd = any(
        unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(one) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        for one in name
    )
    assert answer is (0 < len(name) <= 200 and name == name.strip() and not odd)
    assert accepts(lambda: app.job("x", queue=name)) is (answer and name != "flowrun")
    assert accepts(lambda: app.handler(name)(lambda value: value)) is (answer and not name.startswith("flowrun."))
    for option in ("sequence", "fair_key"):
        assert accepts(lambda option=option: app.job("x", **{option: name})) is (0 < len(name) <= 200 and not odd)
    assert accepts(lambda: app.job("x", limit=(name, 3))) is (0 < len(name) <= 200 and not odd)
    assert accepts(lambda: app.job("x", key=name)) is (
        0 < len(name) <= 500 and len(name.encode("utf-8", "replace")) <= 1800 and not odd
    )
    return answer and name != "flowrun" and not name.startswith("flowrun.")


async def counts(connection: asyncpg.Connection) -> list[int]:
    tables = ("jobs", "flows", "keys", "schedules", "ready", "queues")
    return [await connection.fetchval(f"select count(*) from flowrun.{table}") for table in tables]


async def empty(connection: asyncpg.Connection, dsn: str) -> None:
    """Take away what the example before has left."""
    if dsn not in FRESH:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'flowrun'")
        tables = [f"flowrun.{row[0]}" for row in rows]
        FRESH[dsn] = [one for one in tables if not await connection.fetchval(f"select count(*) from {one}")]
    await connection.execute(f"truncate {', '.join(FRESH[dsn])}")


def typed(dsn: str, *words: str) -> list[Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*words, "--json", "--dsn", dsn]) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def everywhere(dsn: str, names: list[str]) -> None:
    app = Flowrun(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await empty(connection, dsn)
        before = await counts(connection)
        good = [name for name in names if placeable(app, name)]
        async with app:
            for name in [name for name in names if not accepts(lambda name=name: app.flow(name))]:
                with contextlib.suppress(ConfigurationError):
                    await app.schedules.put(name, every=3600.0, spec=app.job(name))
                with contextlib.suppress(ConfigurationError):
                    await app.queues.pause(name)
            assert await counts(connection) == before
            await live(app, dsn, good)
    finally:
        await connection.close()


async def live(app: Flowrun, dsn: str, names: list[str]) -> None:
    singles, runs = {}, {}
    for name in names:
        job = app.job(name, {"value": name})
        singles[name] = await job.options(queue=name, tags=[name], key=name, limit=(name, 3), fair_key=name).dispatch()
        assert (await job.options(key=name).dispatch()).id == singles[name].id
        flow = app.flow(name, tags=[name, "more"], key=name)
        first = flow.add(job.options(queue=name, sequence=name), name=name)
        flow.wait_for(name, after=first, name="gate")
        flow.add(app.job(name, {"value": first.result}), after=any_of(name, "gate"), name=f"{name[:190]} then")
        runs[name] = await flow.dispatch()
        await app.schedules.put(name, every=86_400.0, spec=job)
        await app.schedules.pause(name, actor=name, reason=name)
        explained = await singles[name].explain()
        assert repr(name) in str(explained)
    async with app.worker(concurrency=8, queues=["default", *names]):
        [worker] = await app.workers.list()
        assert set(names) <= set(worker.queues)
        assert set(names) <= set(worker.types)
        for name in names:
            assert await singles[name].result(timeout=30) == name
            assert await runs[name].signal(name, name) is True
            assert (await runs[name].wait(timeout=30)).state == "succeeded"
            assert await runs[name][name].result(timeout=30) == name
    for name in names:
        found = [(one.type, one.queue, one.id) for one in await app.jobs.list(type=name, queue=name, flow=None)]
        assert {one[:2] for one in found} == {(name, name)}
        assert {one.type for one in await app.jobs.list(type=name)} == {name}
        assert {one.queue for one in await app.jobs.list(queue=name)} == {name}
        assert [one.id for one in await app.jobs.list(tag=name)] == [singles[name].id]
        assert [one.name for one in await app.flows.list(name=name)] == [name]
        assert [(one.name, list(one.tags)) for one in await app.flows.list(tag=name)] == [(name, [name, "more"])]
        assert set((await runs[name].status()).nodes) == {name, "gate", f"{name[:190]} then"}
        schedule = await app.schedules.get(name)
        assert (schedule.key, schedule.paused) == (name, True)
        assert (await app.get_flow(runs[name].id)).name == name
        assert await app.failed.list(error=name) == []
        assert [entry.verb for entry in await runs[name].audit()] == ["signal"]
    if names:
        words = names[:2]  # each takes a connection of its own
        for name in words:
            rows = await asyncio.to_thread(typed, dsn, "jobs", f"--type={name}", f"--queue={name}")
            assert {(row["type"], row["queue"]) for row in rows} == {(name, name)}
            [row] = await asyncio.to_thread(typed, dsn, "flows", f"--name={name}")
            assert (row["name"], row["tags"]) == (name, [name, "more"])
        rows = await asyncio.to_thread(typed, dsn, "schedules")
        assert {row["key"] for row in rows} == set(names)
        for name in names:
            await app.schedules.remove(name)


@given(st.lists(HARSH | st.sampled_from(EVIL), min_size=10, max_size=10, unique=True))
@example(EVIL)
@settings(
    max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_names_are_data_everywhere(dsn: str, names: list[str]) -> None:
    asyncio.run(everywhere(dsn, names))


def test_a_schema_with_a_hostile_name_is_quoted() -> None:
    statement = Database("postgresql://x/y", schema='a"; drop table x; --').sql["claim"]
    assert '"a""; drop table x; --".' in str(statement)
