"""Sealed values: opened where they belong, and nowhere else, whatever stands in the table."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from flowrun import codec
from flowrun.core.plan import JobRow
from flowrun.encryption import Encryption
from flowrun.errors import NotReadable
from flowrun.sealing import PLAIN, Sealing, rows
from flowrun.sealing.sealing import MARK

KEYS = Encryption({"k2": b"2" * 32, "k1": b"1" * 32})
SEALING = Sealing(KEYS)
ID = UUID(int=7)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
names = st.text(st.sampled_from("args:\n123 result"), min_size=1, max_size=12)
arguments = st.dictionaries(
    st.sampled_from(["x", "signal", "timeout", "answers", "default", "on_error", "items", "over", "with", "sealed"]),
    plain,
    max_size=5,
)
tampered = st.builds(
    lambda version, key, body: f"{MARK}{version}:{key}:{body}",
    st.sampled_from(["1", "2", "", "x"]),
    st.sampled_from(["k1", "k9", "", "k\x00", "ü", "k1:k2"]),
    st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.hex()),
)
VALUES = st.tuples(plain, names, names, arguments, st.sampled_from([0, 3, 5]), tampered, st.integers(0, 400))


def check(value: tuple[Any, ...]) -> None:
    given, field, other, args, kind, token, at = value
    text = codec.dump(given)
    sealed = SEALING.json(text, ID, field)
    assert SEALING.opened_json(sealed, ID, field) == text
    assert PLAIN.opened_json(text, ID, field) == text or text.startswith(f'"{MARK}')
    if other != field:
        _closed(sealed, ID, other)
    _closed(sealed, f"{ID}{other}", field)
    place = len(f'"{MARK}1:k2:') + at % (len(sealed) - len(f'"{MARK}1:k2:') - 4)
    flipped = "B" if sealed[place] == "A" else "A"
    if flipped != sealed[place]:
        _closed(sealed[:place] + flipped + sealed[place + 1 :], ID, field)
    _closed(codec.dump(token.replace("\x00", "")), ID, field)
    _rows(args, kind)


def _closed(stored: str, owner: object, field: str) -> None:
    for sealing in (SEALING, PLAIN):
        try:
            sealing.opened_json(stored, owner, field)
        except NotReadable as error:
            assert len(str(error)) < 500
            assert "encrypted" in str(sealing.shown_json(stored, owner, field))
        else:
            raise AssertionError("it was opened")


def _rows(args: dict[str, Any], kind: int) -> None:
    """Arguments of all kinds come back as they were; those of a gate or a map that are looked into stay readable."""
    stored = codec.dump(args)
    if kind != 0 and "sealed" in args:  # no such argument is flowrun's
        return
    row = JobRow(ID, None, kind, None, "q", "t", stored, None, None, 5, False, None, None, None)
    sealed = rows.row(SEALING, row)
    assert rows.opened_args(SEALING, kind, sealed.args, ID) == args
    shown = rows.shown_args(PLAIN, kind, sealed.args, ID)
    assert shown == {"...": "encrypted (key id k2)"} or (kind != 0 and shown == args)
    assert rows.row(PLAIN, row) == row
