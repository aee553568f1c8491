"""Each statement is valid against the schema under any name, is used, and says what it does."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

import flowrun
from flowrun.errors import ConfigurationError
from flowrun.store import migrate
from flowrun.store.statement import Statements, names, quote, render

PACKAGE = Path(flowrun.__file__).parent
SQL = PACKAGE / "store" / "sql"
ODD = 'We"ird. Schema'
TABLES = {
    "attempts", "audit", "begun", "blocked", "cancels", "deadlines", "edges", "failed_jobs", "finished", "flow_status", "flows", "gates",
    "job_status", "jobs", "keys", "leases", "migrations", "progress", "queues", "ready", "scheduled", "schedules", "signals",
    "pruning", "retention", "slots", "starts", "steps", "throttle", "types", "workers",
}  # fmt: skip
FUNCTIONS = {"dispatch", "nodes_of"}


FRESH = True


@pytest.fixture
async def odd(connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    await migrate.migrate(connection, ODD)
    # Whatever is not qualified is not found.
    await connection.execute("drop schema flowrun cascade")
    yield connection


async def test_each_can_be_prepared(connection: asyncpg.Connection, sql: Statements) -> None:
    for name in names():
        await _prepare(connection, name, sql)


async def test_each_can_be_prepared_in_a_schema_with_an_odd_name(odd: asyncpg.Connection) -> None:
    for name in names():
        await _prepare(odd, name, Statements(ODD))


async def _prepare(connection: asyncpg.Connection, name: str, statements: Statements) -> None:
    try:
        await connection.prepare(statements[name])
    except asyncpg.PostgresError as error:
        pytest.fail(f"{name}.sql: {error}")


def strings(folder: Path) -> Iterator[str]:
    """All string literals of the package."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_each_is_used_by_name() -> None:
    unused = set(names()) - set(strings(PACKAGE))
    assert not unused


@pytest.mark.parametrize("name", names())
def test_opens_with_what_it_does(name: str) -> None:
    text = (SQL / f"{name}.sql").read_text("utf-8")
    header = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        header.append(line)
    assert header, f"{name}.sql has no comment on top"
    assert header[0].startswith("-- ")
    assert header[0][3].isupper()
    said = set(re.findall(r"\$\d+", "\n".join(header)))
    used = set(re.findall(r"\$\d+", Statements()[name]))
    assert said == used, f"{name}.sql documents {sorted(said)} and uses {sorted(used)}"


@pytest.mark.parametrize("name", names())
def test_no_table_is_unqualified(name: str) -> None:
    text = (SQL / f"{name}.sql").read_text("utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    named = re.findall(r"\b(?:from|join|into|update|table|using)\s+([\w.]+)", body)
    assert not [table for table in named if table in TABLES]
    bodies = set(re.findall(r"\bflowrun\.(\w+)", body))
    assert bodies <= TABLES | FUNCTIONS, f"{name}.sql names {sorted(bodies - TABLES - FUNCTIONS)}"


def test_the_qualifier_is_replaced_and_nothing_else() -> None:
    text = "select flowrun.jobs.id, 'flowrun', xflowrun.jobs, flowrun.\"x\" from flowrun.jobs"
    assert render(text, "a\\1b") == (
        'select "a\\1b".jobs.id, \'flowrun\', xflowrun.jobs, flowrun."x" from "a\\1b".jobs'
    )


@pytest.mark.parametrize("bad", ["", "pg_toast", "x" * 64, "é" * 32, "nul\x00"])
def test_a_name_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="schema must be a name"):
        quote(bad)


def test_no_comment_is_sent() -> None:
    statements = Statements()
    for name in names():
        assert "--" not in statements[name]
