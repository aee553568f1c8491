"""Whatever stands in a table that its constraints admit: a worker goes on with all else, leaves, and lists answer.

A dispatcher's role may write some of it, a restore or a hand in SQL all of it. For every column of every table, values at
and beyond the ends of its type, JSON of another shape, arrays with nulls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from uuid import UUID

import asyncpg
import pytest

from flowrun import Flowrun, Job
from flowrun.mint import job_id
from flowrun.worker.session import Session

pytestmark = pytest.mark.timeout(300)

LANE = "'default' || chr(31) || 'fair' || chr(31) || '{}' || chr(31) || 'key:k' || chr(31)"
VALUES = {
    "timestamp with time zone": ["'infinity'", "'-infinity'", "'294276-12-31 00:00+00'", "'4713-01-01 00:00+00 BC'", "'0001-01-01 00:00+00'"],
    "smallint": ["-32768", "-1", "0", "7", "32767"],
    "integer": ["-2147483648", "-1", "0", "2147483647"],
    "bigint": ["-9223372036854775808", "-1", "0", "9223372036854775807"],
    "double precision": ["'NaN'", "'Infinity'", "'-Infinity'", "1e308", "-1", "9e12", "1e-300"],
    "text": ["''", "repeat('x', 2000)", "chr(1)", "chr(31)", "'x' || chr(10) || 'y'", "'{}'", "U&'\\+01F600'",
             LANE.format("x"), LANE.format("99999999999"), LANE.format("0"), LANE.format("-1"), "'default' || chr(31)",
             "'default' || chr(31) || chr(31) || chr(31) || 'sequence:s' || chr(31) || 'h'", "'Mars/Olympus'", "'* * * *'"],
    "jsonb": ["'null'", "'[]'", "'{}'", "'\"x\"'", "'3'", "'true'", "'[null]'", "'[[null]]'", "'{\"a\": null}'",
              "('1' || repeat('0', 5000))::jsonb", "(repeat('[', 3000) || repeat(']', 3000))::jsonb", "'[[[\"n\"], 0, []]]'",
              "'[[[\"n\"], 7, []]]'", "'[[3, \"x\"]]'", "'[[[\"n\"], 0, [\"x\", 1]]]'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "gen_random_uuid()"],
    "boolean": ["true", "false"],
    "ARRAY": ["'{}'", "'{null}'", "'{null,null,null}'"],
}  # fmt: skip
OPTIONS = [
    '{"tags": 3}', '{"tags": {"a": 1}}', '{"tags": [null, 3]}', '{"dispatched_by": "x"}', '{"scheduled_for": "x"}',
    '{"scheduled_for": "+200000-01-01"}', '{"schedule": 3}', '{"before": "x"}', '{"before": 99999}', '{"before": null}',
    '{"attempts": "x"}', '{"attempts": -3}', '{"timeout": "x"}', '{"timeout": -1}', '{"timeout": 1e400}',
    '{"retention": "x"}', '{"retention": {"succeeded": "x"}}', '{"lost": "x"}', '{"lost": 99999999999}', '{"callback": 1}',
    '{"verdict": "x"}', '{"need": "x"}', '{"on_failure": 3}', '{"on_failure": {}}', '{"on_failure": "x"}',
    '{"compensates": 1}', '{"start_by": 3}', '{"backoff": 3}', '{"backoff": {"kind": "x"}}', '{"retry_on": 3}',
    '{"failure": 3}', '{"item": 3}', '{"item": {}}', '{"cleanup": 3}', '{"weight": "x"}',
]  # fmt: skip
TESTS = [
    '{}', '[]', 'null', '"x"', '{"on": "x"}', '{"on": 99}', '{"on": 99999999}', '{"op": "=="}', '{"on": 0, "op": "in", "value": 3}',
    '{"on": 0, "op": "not in", "value": {"a": 1}}', '{"on": 0, "op": "==", "path": "x", "value": 1}', '{"op": 3}',
    '{"on": 0, "op": "==", "path": {"a": 1}, "value": 1}', '{"on": 0, "rivals": "x"}', '{"on": 0, "rivals": ["x"]}',
    '{"on": 0, "rivals": [null]}', '{"on": 0, "choice": 3, "rivals": {"a": 1}}', '{"on": 0, "path": [null], "op": "=="}',
]  # fmt: skip
ARGS = ["'{\"n\": \"x\"}'", "'{\"signal\": 3}'", "'{\"signal\": \"s\", \"timeout\": \"x\"}'", "'{\"signal\": \"s\", \"timeout\": 1e300}'",
        "'{\"over\": 3}'", "'{\"over\": [1]}'", "'{\"over\": [1], \"argument\": \"n\", \"with\": 3}'", "'{\"result\": 3}'"]  # fmt: skip

JOB = {"id": "{id}", "queue": "'default'", "type": "'work'", "args": "'{{\"n\": 1}}'"}
READY = {"id": "{id}", "queue": "'default'", "type": "'work'", "priority": "5"}
ROWS: dict[str, dict[str, str]] = {
    "jobs": JOB,
    "ready": READY,
    "scheduled": {"id": "{id}", "run_at": "now()"},
    "blocked": {"id": "{id}", "need": "1", "open": "1"},
    "edges": {"parent_id": "{id}", "child_id": "{other}"},
    "leases": {"worker_id": "gen_random_uuid()", "n": "1", "jobs": "array['{{id}}'::uuid]", "attempts": "'{{1}}'"},
    "finished": {"id": "{id}", "outcome": "1", "attempt": "1", "result": "'1'"},
    "attempts": {"job_id": "{id}", "attempt": "1", "error_type": "'E'", "message": "'m'"},
    "cancels": {"id": "{id}"},
    "deadlines": {"id": "{id}", "kind": "0", "due_at": "now()"},
    "gates": {"id": "{id}", "root_id": "{other}", "signal": "'s'"},
    "signals": {"root_id": "{other}", "signal": "'s'"},
    "keys": {"scope": "'job:work'", "key": "'{{id}}'", "id": "{id}"},
    "queues": {"name": "'{{id}}'"},
    "slots": {"name": "'key:{{id}}'", "worker_id": "gen_random_uuid()", "n": "1", "jobs": "array['{{id}}'::uuid]"},
    "starts": {"queue": "'default'", "started_at": "now()", "jobs": "1"},
    "steps": {"job_id": "{id}", "name": "'s'"},
    "progress": {"job_id": "{id}", "fraction": "0.5"},
    "audit": {"id": "gen_random_uuid()", "job_id": "{id}", "verb": "'retry'"},
    "workers": {"id": "gen_random_uuid()", "name": "'w'", "queues": "'{{default}}'", "concurrency": "1",
                "expires_at": "now() + interval '1 day'"},
    "schedules": {"key": "'{{id}}'", "every_us": "1000000", "kind": "0", "name": "'work'", "next_at": "now()",
                  "template": "'{{template}}'"},
    "retention": {"scope": "'type'", "name": "'{{id}}'", "outcome": "1", "seconds": "1"},
    "begun": {"job_id": "{id}", "worker_id": "gen_random_uuid()", "n": "1"},
    "types": {"name": "'{{id}}'"},
    "flows": {"id": "{id}", "root_id": "{id}", "name": "'f'"},
}  # fmt: skip
ALONE = {"throttle", "pruning", "migrations"}
"""Tables of one row, or none's but the owner's."""


def make(dsn: str) -> Flowrun:
    app = Flowrun(dsn, lease=3.0, poll=0.2)

    @app.handler(attempts=2, backoff=[0.0])
    async def work(n: int) -> int:
        return n

    @app.handler(attempts=2, backoff=[0.0])
    async def working(job: Job, n: int) -> int:
        return n

    return app


class Planter:
    """Puts rows in place, each with a job of its own."""

    def __init__(self, connection: asyncpg.Connection, template: str) -> None:
        self._connection = connection
        self._template = template.replace("'", "''")
        self.admitted: list[str] = []

    async def plant(self, table: str, column: str, value: str, *, kind: int = 0) -> None:
        id, other = job_id(), job_id()
        rows = [("jobs", {**JOB, "kind": str(kind)})]
        if table in ("edges", "attempts", "jobs", "deadlines", "cancels", "steps", "progress", "keys", "slots"):
            rows.append(("ready", READY))
        if table == "edges":
            rows += [("jobs", {**JOB, "id": "{other}"}), ("blocked", {**ROWS["blocked"], "id": "{other}"})]
        if table == "gates":
            rows.append(("flows", {**ROWS["flows"], "id": "{other}", "root_id": "{other}"}))
        if table == "jobs":
            rows[0] = ("jobs", {**rows[0][1], column: value})
            if column == "test":
                return
        elif table == "edges" and column == "test":
            rows.append((table, {**ROWS[table], "condition": "5", column: value}))
        else:
            rows.append((table, {**ROWS[table], column: value}))
        if table == "jobs" and column in ("sources", "bindings"):
            rows[0][1].update({"sources": "array['{other}'::uuid]", "bindings": "'[]'"} | {column: value})
        text = ""
        for name, row in rows:
            values = ", ".join(self._filled(one, id, other) for one in row.values())
            text += f"insert into flowrun.{name} ({', '.join(row)}) values ({values});"
        try:
            async with self._connection.transaction():
                await self._connection.execute(text)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError):
            return
        self.admitted.append(f"{table}.{column} = {value[:60]} (kind {kind}, job {id})")

    def _filled(self, text: str, id: UUID, other: UUID) -> str:
        if text in ("{id}", "{other}"):
            return f"'{id if text == '{id}' else other}'"
        return (
            text.replace("{{id}}", str(id)).replace("{{template}}", self._template).replace("{other}", str(other))
            .replace("{{", "{").replace("}}", "}")
        )  # fmt: skip


def hostile(table: str, column: str, type: str) -> list[str]:
    values = list(VALUES[type]) + ["null"]
    if column == "options":
        values += [f"'{one}'" for one in OPTIONS]
    if (table, column) == ("edges", "test"):
        values += [f"'{one}'" for one in TESTS]
    if column == "args":
        values += ARGS
    return values


async def look(app: Flowrun) -> None:
    """All that people look at, for the last things that stand there."""
    jobs = await app.jobs.list(limit=1000)
    flows = await app.flows.list(limit=1000)
    await asyncio.gather(
        app.failed.list(limit=1000), app.gates.list(), app.schedules.list(), app.workers.list(), app.queues.list()
    )
    for job in jobs[:3]:
        run = await app.get_job(job.id)
        await run.status()
        await run.attempts()
        await run.explain()
        str(job)
    for flow in flows[:3]:
        await (await app.get_flow(flow.id)).status()


async def at_peace(session: Session, app: Flowrun) -> None:
    """Nothing is tried in vain for ever."""
    deadline = asyncio.get_running_loop().time() + 15
    while tried := [*session.troubles.now(), *app.client.troubles.now()]:
        assert asyncio.get_running_loop().time() < deadline, [one.what for one in tried]
        await asyncio.sleep(0.05)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the words about each job that such a row fails."""
    logger = logging.getLogger("flowrun.job")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("table", sorted(ROWS))
async def test_no_row_stops_a_worker_or_a_list(dsn: str, connection: asyncpg.Connection, table: str) -> None:
    columns = await connection.fetch(
        "select column_name, data_type from information_schema.columns"
        " where table_schema = 'flowrun' and table_name = $1 and is_generated = 'NEVER'"
        " and is_identity = 'NO' order by ordinal_position",
        table,
    )
    assert columns
    app = make(dsn)
    async with app:
        await app.schedules.put("template", every=3600.0, spec=app.job("work", {"n": 1}))
        template = await connection.fetchval("select template::text from flowrun.schedules")
        planter = Planter(connection, template)
        for _ in range(2):  # the second worker meets what the first has left
            async with asyncio.timeout(120):
                async with app.worker(concurrency=4) as worker:
                    for name, type in columns:
                        kinds = (
                            (0, 1, 2, 3, 4, 5, 6)
                            if table == "jobs" and name in ("args", "options", "bindings")
                            else (0,)
                        )
                        for value in hostile(table, name, type):
                            for kind in kinds:
                                await planter.plant(table, name, value, kind=kind)
                        where = f"after {table}.{name}: {planter.admitted[-8:]}"
                        run = await app.job("work", {"n": 7}).dispatch()
                        limited = await app.job("working", {"n": 8}, limit=("few", 1), delay=0.01).dispatch()
                        try:
                            assert await run.result(timeout=15) == 7, where
                            assert await limited.result(timeout=15) == 8, where
                            await look(app)
                        except Exception as error:
                            raise AssertionError(f"{error!r} {where}; {app.client.troubles.now()}") from error
                    session = worker._session
                    assert session is not None
                    await at_peace(session, app)
        assert planter.admitted


async def test_every_table_is_tried(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("select tablename from pg_tables where schemaname = 'flowrun'")
    assert {row[0] for row in rows} == {*ROWS, *ALONE}
