"""Whatever is given: a value, or one of flowrun's own refusals. Never another exception, never a secret in the message."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowrun import ConfigurationError, NotStorable, codec
from flowrun.cli.asking import parse_arguments, parse_id, parse_json, parse_moment, shown
from flowrun.cli.exits import UsageError
from flowrun.dsn import check_dsn
from flowrun.store.pool import where

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["\x00", "a\x00b", "\ud800", "\udfff", "\U0001f4ee", "null", "NaN", "\\u0000"]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, 2**64, -(2**63) - 1]) | st.floats() | TEXTS
    | st.binary(max_size=4) | st.sets(st.integers(), max_size=2) | st.complex_numbers() | st.just(object()) | st.dates() | st.decimals() | st.uuids()
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


def as_json(value: Any) -> Any:
    """What JSON makes of it: tuples are lists."""
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def refusal(call: Callable[[], object], kind: type[Exception]) -> str | None:
    """What is said where it is refused; any other exception passes."""
    try:
        call()
    except kind as refused:
        return str(refused)
    return None


@given(VALUES)
@settings(max_examples=300, deadline=None)
@example({"a\x00": 1})
@example([{"a": [-0.0, math.nan]}])
@example({"text": "null \\u0000 NaN"})
@example([10**5000])
def test_the_codec_refuses_or_gives_back_what_it_was_given(value: Any) -> None:
    said = refusal(lambda: codec.dump(value, limit=100_000), NotStorable)
    if said is not None:
        assert 0 < len(said) < 500
        return
    text = codec.dump(value)
    assert "\x00" not in text
    text.encode()
    back = codec.load(text)
    assert back == as_json(value)
    assert json.loads(text) == back
    assert codec.dump(back) == text


@given(st.text("postgresql://[]@:,?=&%/#. abc019\x00\n\ud800", max_size=40) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
@example("x://[::1")
@example("://@:")
@example("ann:12/")
@example(":\u2100@")
def test_any_dsn_is_taken_or_refused_without_its_password(rest: str) -> None:
    for dsn in (
        rest, f"postgresql://ann:hunter2@{rest}", f"postgresql://{rest}:hunter2@host/x", f"postgresql://{rest}hunter2@host/x",
        f"postgresql://h/x?password=hunter2&{rest}",
    ):  # fmt: skip
        said = refusal(lambda dsn=dsn: check_dsn(dsn), ConfigurationError)
        assert "hunter2" not in (said or "")
        if "/" not in rest or not dsn.startswith(f"postgresql://{rest}hunter2"):  # there it may be the user
            assert "hunter2" not in where(dsn)


@given(st.text('{}[]":,0123456789.eE+-nulltrefas\\u \x00\ud800', max_size=30) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
@example("[" * 100_000)
@example('{"a": 1, "a": 2}')
@example("1e999")
@example("NaN")
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-12:00")
def test_anything_typed_is_read_or_a_usage_error(text: str) -> None:
    for read in (parse_json, parse_arguments, parse_moment):
        said = refusal(lambda read=read: read("ARGS", text), UsageError)
        assert len(said or "") < 1000
        if said is None and read is not parse_moment:
            codec.dump(read("ARGS", text))
    assert len(refusal(lambda: parse_id(text), UsageError) or "") < 1000


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_ends_of_time_are_shown_in_every_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert shown(datetime(2026, 1, 1, tzinfo=UTC))[:3] == "202"
        assert shown(datetime.max.replace(tzinfo=UTC)).startswith("9999-12-31")
        assert shown(datetime.min.replace(tzinfo=UTC))[-8:] in ("00:00:00", "14:00:00")
    finally:
        monkeypatch.undo()
        time.tzset()
