"""Other arguments for jobs that run again. The caller holds the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from flowrun import codec
from flowrun.sealing import PLAIN, Sealing, rows
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements


class Edit(NamedTuple):
    """Arguments that take the place of those stored, or are taken out."""

    text: str
    """By name, as JSON."""
    sealing: Sealing = PLAIN
    drop: Sequence[str] = ()
    """Names of arguments that are taken out."""


async def edit(connection: Connection, sql: Statements, ids: Sequence[UUID], edit: Edit) -> None:
    """Replace and drop arguments of each of ``ids``. Raises NotReadable where they are encrypted and cannot be opened.

    What is encrypted is opened, changed and sealed again here; the rest the database does in one statement.
    """
    if not edit.sealing.active:
        done = await connection.fetch(sql["edit_args"], ids, edit.text, list(edit.drop))
        if len(done) == len(ids):
            return
    given = codec.load(edit.text)
    found = await connection.fetch(sql["args_of"], ids)
    texts = []
    for id, kind, args, failed in found:
        known = rows.opened_args(edit.sealing, kind, args, id, failed)
        edited = {name: value for name, value in {**known, **given}.items() if name not in edit.drop}
        texts.append(rows.sealed_args(edit.sealing, kind, edited, id, failed))
    if found:
        await connection.execute(sql["set_args"], [row[0] for row in found], texts, [*given, *edit.drop])
