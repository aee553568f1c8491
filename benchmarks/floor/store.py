"""The floor's statements, its connections, and its rows by raw `copy`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pgproto import pgproto

from benchmarks.work import Work

QUEUE = "default"
CHANNEL = "floor"

_HERE = Path(__file__).parent
SQL = {file.stem: file.read_text("utf-8") for file in _HERE.glob("*.sql")}

PINNED = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}
"""Leaves only the index, whatever the statistics say, and plans once."""
CLAIMING = PINNED | {"enable_sort": "off", "synchronous_commit": "off"}
SETTLING = PINNED | {"enable_mergejoin": "off", "enable_nestloop": "off"}
"""Nested loops remain where nothing else is possible: in the laterals."""


async def connect(dsn: str, **settings: str) -> Any:
    """A connection that carries jsonb as orjson's bytes."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "floor", "jit": "off", **settings})
    await carry_json(connection)
    return connection


async def carry_json(connection: Any) -> None:
    """JSON bytes in, Python values out; no text in between."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda data: b"\x01" + data,
        decoder=lambda data: orjson.loads(memoryview(data)[1:]),
        format="binary",
    )


def new_ids(count: int) -> list[UUID]:
    """Growing UUIDv7s, as cheap as they can be had."""
    random = os.urandom(8 * count)
    start = time.time_ns() // 1_000_000
    ids = []
    for number in range(count):
        head = (start + (number >> 12)).to_bytes(6, "big") + (0x7000 | (number & 0xFFF)).to_bytes(2, "big")
        at = 8 * number
        ids.append(pgproto.UUID(head + bytes([0x80 | random[at] & 0x3F]) + random[at + 1 : at + 8]))
    return ids


ARGS = b'{"order_id":1}'


async def insert(
    connection: Any,
    work: Work,
    types: Mapping[int, str] | None = None,
    args: Callable[[int], bytes] = lambda _: ARGS,
) -> None:
    """Write the rows of ``work`` by `copy`, in one transaction.

    ``types`` names the jobs, by their numbers, that are not ``noop``; ``args`` gives a job's arguments as JSON.
    """
    ids = new_ids(work.jobs)
    need = [0] * work.jobs
    for _, child in work.edges:
        need[child] += 1
    flow = ids[0]
    names = types or {}
    async with connection.transaction():
        await _copy(
            connection,
            "jobs",
            ("id", "flow_id", "queue", "type", "args"),
            [(id, flow, QUEUE, names.get(at, "noop"), args(at)) for at, id in enumerate(ids)],
        )
        if work.edges:
            edges = [(ids[parent], ids[child]) for parent, child in work.edges]
            await _copy(connection, "edges", ("parent_id", "child_id"), edges)
            blocked = [(id, count) for id, count in zip(ids, need, strict=True) if count]
            await _copy(connection, "blocked", ("id", "need"), blocked)
        ready = [(QUEUE, id) for id, count in zip(ids, need, strict=True) if not count]
        await _copy(connection, "ready", ("queue", "id"), ready)


async def _copy(connection: Any, table: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    await connection.copy_records_to_table(table, schema_name="floor", columns=columns, records=rows)
