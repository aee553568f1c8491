"""What a statement's plan really does: EXPLAIN (ANALYZE, BUFFERS) of it with arguments, and the effort read out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from flowrun.store.pool import PINNED
from flowrun.store.statement import Statements

QUIET = {"jit": "off", "max_parallel_workers_per_gather": "0", "lock_timeout": "30s"}
MODES = {
    "pinned": {**PINNED, **QUIET},
    "generic": {"plan_cache_mode": "force_generic_plan", **QUIET},
    "custom": {"plan_cache_mode": "force_custom_plan", **QUIET},
}


@dataclass
class Plan:
    """The nodes of a plan that was executed."""

    root: dict[str, Any]
    milliseconds: float

    def nodes(self) -> Iterator[dict[str, Any]]:
        stack = [self.root]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.get("Plans", ()))

    def effort(self) -> float:
        """The most rows that any one node went through, those it threw away included."""
        return max(map(_rows, self.nodes()))

    def scanned(self, kind: str = "Seq Scan") -> set[str]:
        """The tables read by that kind of node."""
        return {node["Relation Name"] for node in self.nodes() if node["Node Type"] == kind}

    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes() if "Index Name" in node}

    def worst(self) -> str:
        """The node that went through most rows, for a failure's message."""
        node = max(self.nodes(), key=_rows)
        of = node.get("Relation Name") or node.get("CTE Name") or node.get("Index Name") or ""
        return f"{node['Node Type']} {of}: {_rows(node):,.0f} rows in {node.get('Actual Loops')} loops"


def _rows(node: dict[str, Any]) -> float:
    """The rows a node went through, those it threw away included."""
    removed = sum(node.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Join Filter", "Index Recheck"))
    return node.get("Actual Loops", 0) * (node.get("Actual Rows", 0) + removed)


class Explainer:
    """A connection that has statements prepared and shows what they do, undoing it afterwards."""

    def __init__(self, connection: Any, sql: Statements) -> None:
        self.connection, self.sql = connection, sql
        self._prepared: set[str] = set()

    async def prepare(self, name: str) -> None:
        if name not in self._prepared:
            await self.connection.execute(f"prepare {name} as {self.sql[name]}")
            self._prepared.add(name)

    async def explain(self, name: str, args: Sequence[Any]) -> Plan:
        await self.prepare(name)
        values = f"({', '.join(map(_literal, args))})" if args else ""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            found = await self.connection.fetchval(f"explain (analyze, buffers, format json) execute {name}{values}")
        finally:
            await transaction.rollback()
        (explained,) = json.loads(found)
        return Plan(explained["Plan"], explained["Execution Time"])


@asynccontextmanager
async def explainer(dsn: str, mode: str, sql: Statements):
    connection = await asyncpg.connect(dsn, server_settings=MODES[mode])
    try:
        yield Explainer(connection, sql)
    finally:
        await connection.close()


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list):
        return "'{" + ",".join(map(_item, value)) + "}'"
    return "'" + str(value).replace("'", "''") + "'"


def _item(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | float | UUID):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("'", "''") + '"'
