"""No join is lost, none is released twice, nothing deadlocks: 16 connections, late and repeated settles mixed in.

A race that hits one join in 10,000 needs 30,000 clean ones to be seen with 95 % probability.
"""

from __future__ import annotations

import re

import asyncpg
import pytest

from flowrun.core.states import Outcome
from flowrun.store.statement import Statements, render
from tests.store.joins import Crew, Graph, bipartite, layered, mixed, two_parents
from tests.store.stage import deadlocks, outcomes

pytestmark = pytest.mark.timeout(120)
FRESH = True


class Planted(Statements):
    """The statements with a bug in one of them."""

    def __init__(self, name: str, *changes: tuple[str, str]) -> None:
        super().__init__()
        text = self[name]
        for change in changes:
            good, bad = (render(part, self.schema) for part in change)
            assert text.count(good) == 1, f"{name}.sql has changed; plant the bug anew: {good!r}"
            text = text.replace(good, bad)
        self._rendered[name] = text


async def settle_all(dsn: str, connection: asyncpg.Connection, graph: Graph, crew: Crew) -> None:
    """Run ``crew`` to the end, checking every counter on the way, and compare with the recomputation."""
    before = await deadlocks(dsn, connection)
    await graph.insert(connection, crew.sql)
    ledger = crew.ledger
    for part in (0.3, 0.7, None):
        ledger.stop_at = float("inf") if part is None else part * len(graph.nodes)
        await crew.run(dsn)
        assert ledger.errors == []
        assert list(await graph.violations(connection))[:5] == []
    assert list(ledger.violations())[:5] == []
    assert await outcomes(connection) == graph.expected()
    assert len(ledger.accepted) == len(graph.nodes)
    for table in ("blocked", "ready", "scheduled"):
        assert await connection.fetchval(f"select count(*) from flowrun.{table}") == 0
    assert await deadlocks(dsn, connection) == before


async def test_30_000_joins_of_two_parents(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    graph = two_parents(30_000, block=100)
    crew = Crew(graph, sql, seed=1, sizes=(50, 100, 100, 150), noise=0.2)
    await settle_all(dsn, connection, graph, crew)
    assert crew.ledger.met > 3_000
    assert crew.ledger.refused > 2_000


async def test_joins_of_eight_parents(dsn: str, connection: asyncpg.Connection, sql: Statements) -> None:
    graph = two_parents(1_000, parents=8, block=20)
    crew = Crew(graph, sql, seed=2, sizes=(10, 20, 30), noise=0.2)
    await settle_all(dsn, connection, graph, crew)
    assert crew.ledger.met > 1_000


@pytest.mark.parametrize("size", [1, 12])
async def test_240_parents_of_20_shared_children(
    dsn: str, connection: asyncpg.Connection, sql: Statements, size: int
) -> None:
    graph = bipartite(240, 20)
    crew = Crew(graph, sql, seed=3, sizes=(size,), noise=0.1)
    await settle_all(dsn, connection, graph, crew)
    assert crew.ledger.met > 100


async def test_layers_in_which_everyone_waits_for_everyone(
    dsn: str, connection: asyncpg.Connection, sql: Statements
) -> None:
    graph = layered(24, 12)
    crew = Crew(graph, sql, seed=4, sizes=(1, 2, 3), noise=0.1)
    await settle_all(dsn, connection, graph, crew)


@pytest.mark.parametrize("seed", [5, 6])
async def test_half_fail_and_conditions_are_mixed(
    dsn: str, connection: asyncpg.Connection, sql: Statements, seed: int
) -> None:
    graph = mixed(600, 8, 200, seed)
    found = set(graph.expected().values())
    assert found == {Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SKIPPED}
    crew = Crew(graph, sql, seed, sizes=(2, 5, 20), noise=0.15)
    await settle_all(dsn, connection, graph, crew)
    assert crew.ledger.met > 100


LOCKED = "select id, need, open from flowrun.blocked where blocked.id = fired.child_id for update"
KEPT = "select id, 1, attempt, result::jsonb, claimed_at, finished_at from settled"
COUNTED = "select child_id, count(*)::integer as n from edge"


@pytest.mark.parametrize(
    ("name", "expected", "changes"),
    [
        (
            "the obvious join: release where no parent is unfinished",
            "is lost",
            (
                (
                    "where id = any(array(select id from child where need > 0 and n = 1))",
                    "where id = any(array(select id from child where need > 0 and n = 1)) and false",
                ),
                ("from child where need > 0 and n > 1", "from child where false"),
                (
                    "delete from flowrun.blocked where id = any(array(select id from child where need <= 0))",
                    """delete from flowrun.blocked where id = any(array(select id from child)) and not exists (
                        select from flowrun.edges where edges.child_id = blocked.id
                        and edges.parent_id not in (select id from settled)
                        and not exists (select from flowrun.finished where finished.id = edges.parent_id)
                    )""",
                ),
            ),
        ),
        ("the counter read without its lock", "blocked_need_check", ((LOCKED, LOCKED.removesuffix(" for update")),)),
        ("two parents in one batch counted once", "is lost", ((COUNTED, COUNTED.replace("count(*)::integer", "1")),)),
        (
            "a late settle counted too",
            "started early|the edges say|AssertionError",
            ((KEPT, KEPT + " on conflict (id) do nothing"),),
        ),
        (
            "no fence",
            "AssertionError",
            (
                ("full join mine on mine.id = d.id and mine.n = d.n and mine.attempt = d.attempt", "full join mine on mine.id = d.id"),
                (KEPT, KEPT + " on conflict (id) do update set attempt = excluded.attempt"),
            ),
        ),
    ],
)  # fmt: skip
async def test_the_check_notices(
    dsn: str, connection: asyncpg.Connection, name: str, expected: str, changes: tuple[tuple[str, str], ...]
) -> None:
    graph = two_parents(3_000)
    crew = Crew(graph, Planted("settle", *changes), seed=7, sizes=(25, 50, 100), noise=0.25)
    await graph.insert(connection, crew.sql)
    await crew.run(dsn)
    wrong = [repr(error) for error in crew.ledger.errors]
    wrong += [*await graph.violations(connection), *crew.ledger.violations()]
    assert any(re.search(expected, what) for what in wrong), (name, wrong[:3])


@pytest.mark.deadlocks("planted")
async def test_the_check_notices_a_deadlock(dsn: str, connection: asyncpg.Connection) -> None:
    planted = Planted("settle", ("order by child_id\n", "order by md5(child_id::text || $1::text)\n"))
    graph = bipartite(240, 20)
    crew = Crew(graph, planted, seed=8, sizes=(1, 2), noise=0)
    before = await deadlocks(dsn, connection)
    await graph.insert(connection, planted)
    await crew.run(dsn)
    assert any(isinstance(error, asyncpg.DeadlockDetectedError) for error in crew.ledger.errors)
    assert await deadlocks(dsn, connection) > before


@pytest.mark.deadlocks("planted")
async def test_the_check_notices_unsorted_locks_on_the_slow_path(dsn: str, connection: asyncpg.Connection) -> None:
    planted = Planted("lock_blocked", ("order by id", "order by md5(id::text || pg_backend_pid())"))
    graph = bipartite(240, 20)
    graph.edges = [(parent, child, 2) for parent, child, _ in graph.edges]
    graph = Graph(graph.nodes, graph.edges, fails=set(graph.nodes[:240]))
    crew = Crew(graph, planted, seed=9, sizes=(1, 2), noise=0)
    await graph.insert(connection, planted)
    await crew.run(dsn)
    assert any(isinstance(error, asyncpg.DeadlockDetectedError) for error in crew.ledger.errors)
