"""Keys: who has one, and who gets it.

A key is taken by inserting it and looking afterwards, never by catching a unique violation: nothing here aborts the
transaction it runs in. Key and job are written in one transaction, so whoever sees a key sees its job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from flowrun.core.options import DEBOUNCE
from flowrun.core.plan import KeyRow
from flowrun.errors import DuplicateKey
from flowrun.store.callers import Caller
from flowrun.store.statement import Statements


class Held(NamedTuple):
    """A key that is there already, wanted again."""

    wanted: KeyRow
    old: UUID
    """Who has it."""


async def take(caller: Caller, sql: Statements, keys: Sequence[KeyRow]) -> dict[UUID, UUID]:
    """Give ``keys`` to the jobs and flows they are for; by id of those that are duplicates, who has the key.

    Runs in the transaction that then writes the rest. What was replaced is removed. Raises DuplicateKey. Harmless when
    sent again with the same ids: a key that has been given already is no duplicate.
    """
    pending, repeated = distinct(keys)
    duplicates: dict[UUID, UUID] = {}
    while pending:
        pending = await _round(caller, sql, pending, duplicates)
    repeat(repeated, duplicates)
    return duplicates


async def hold(caller: Caller, sql: Statements, keys: Sequence[KeyRow]) -> list[KeyRow]:
    """Wait for ``keys``, in order, before anything else is locked; those that nobody had, which are given already.

    What :func:`take` asks for afterwards it gets without waiting. Of the keys that are given here, those whose jobs are
    not written after all are for :func:`drop`.
    """
    wanted, _ = distinct(keys)
    if not wanted:
        return []
    left = await _give(caller, sql, wanted)
    if left:
        await caller.fetch(sql["lock_keys"], *_columns(left)[:2])
    theirs = set(left)
    return [key for key in wanted if key not in theirs]


async def drop(caller: Caller, sql: Statements, keys: Sequence[KeyRow]) -> None:
    """Take back keys that this transaction has given to what it does not write."""
    if keys:
        await caller.fetch(sql["drop_keys"], *_columns(keys)[:3])


def distinct(keys: Sequence[KeyRow]) -> tuple[list[KeyRow], list[Held]]:
    """Each key once, as it is to be taken; and what asks for one of these, too."""
    taking: dict[tuple[str, str], KeyRow] = {}
    repeated: list[Held] = []
    for key in keys:
        first = taking.setdefault(key[:2], key)
        if first is not key and key.on_conflict == DEBOUNCE:
            taking[key[:2]] = key
            repeated.append(Held(first, key.id))
        elif first is not key:
            repeated.append(Held(key, first.id))
    return list(taking.values()), repeated


def repeat(repeated: Sequence[Held], duplicates: dict[UUID, UUID]) -> None:
    """What asks for a key that another of the same dispatch asks for is a duplicate of whoever has it by now."""
    for again, first_id in reversed(repeated):
        duplicate(again, duplicates.get(first_id, first_id), duplicates)


async def _round(caller: Caller, sql: Statements, keys: Sequence[KeyRow], duplicates: dict[UUID, UUID]) -> list[KeyRow]:
    """Take what is free, decide about the rest; those about which others changed their mind meanwhile come back."""
    left = await _give(caller, sql, keys)
    if not left:
        return []
    there = {
        (row[0], row[1]): (uuid(row[2]), row[3]) for row in await caller.fetch(sql["held_keys"], *_columns(left)[:2])
    }
    moved: list[KeyRow] = []
    free: list[Held] = []
    replacing: list[Held] = []
    for key in left:
        if key[:2] not in there:
            moved.append(key)
            continue
        old, held = there[key[:2]]
        if old == key.id:
            continue
        if not held:
            free.append(Held(key, old))
        elif key.on_conflict in ("replace", DEBOUNCE):
            replacing.append(Held(key, old))
        else:
            duplicate(key, old, duplicates)
    if both := free + replacing:
        # All at once, in order: what is passed on is locked with what is replaced, not after it.
        rows = await caller.fetch(sql["lock_keys"], *_columns([one.wanted for one in both])[:2])
        holders = {(row[0], row[1]): uuid(row[2]) for row in rows}
        changed = {one for one in both if holders.get(one.wanted[:2]) != one.old}
        moved += [one.wanted for one in both if one in changed]
        free = [one for one in free if one not in changed]
        same = [one for one in replacing if one not in changed]
        free += await _remove(caller, sql, same, duplicates)
    return moved + await _pass(caller, sql, free)


async def _give(caller: Caller, sql: Statements, keys: Sequence[KeyRow]) -> list[KeyRow]:
    """Give keys that nobody has; those that somebody has."""
    scopes, names, ids, _, ttls = _columns(keys)
    given = {(row[0], row[1]) for row in await caller.fetch(sql["take_keys"], scopes, names, ids, ttls)}
    return [key for key in keys if key[:2] not in given]


async def _remove(caller: Caller, sql: Statements, same: Sequence[Held], duplicates: dict[UUID, UUID]) -> list[Held]:
    """Remove what has not started; those whose keys are free with that.

    The keys are locked: of several who replace the same job, the next one finds what the one before wrote.
    """
    removed: set[UUID] = set()
    for _ in range(2):  # a job that became due in between stood in neither place
        ids = [held.old for held in same if held.old not in removed]
        if ids:
            removed |= {uuid(row[0]) for row in await caller.fetch(sql["remove_unstarted"], ids)}
    for held in same:
        if held.old not in removed and held.wanted.on_conflict != DEBOUNCE:
            duplicate(held.wanted, held.old, duplicates)
    return [held for held in same if held.old in removed or held.wanted.on_conflict == DEBOUNCE]


async def _pass(caller: Caller, sql: Statements, free: Sequence[Held]) -> list[KeyRow]:
    """Give keys that are held no more; those that somebody else got first come back."""
    if not free:
        return []
    wanted = [held.wanted for held in free]
    scopes, names, ids, _, ttls = _columns(wanted)
    rows = await caller.fetch(sql["pass_keys"], scopes, names, [held.old for held in free], ids, ttls)
    passed = {(row[0], row[1]) for row in rows}
    return [key for key in wanted if key[:2] not in passed]


def duplicate(key: KeyRow, first: UUID, duplicates: dict[UUID, UUID]) -> None:
    """``key`` is held by ``first``. Raises DuplicateKey where that is what it asks for."""
    if key.on_conflict == "raise":
        raise DuplicateKey(key.scope.replace(":", " ", 1), key.key, first)
    duplicates[key.id] = first


def _columns(keys: Sequence[KeyRow]) -> list[list[object]]:
    return [list(column) for column in zip(*keys, strict=True)]


def uuid(value: object) -> UUID:
    """An id as a connection with codecs of its own may give it."""
    return value if isinstance(value, UUID) else UUID(str(value))
