"""The command line: whatever is typed gives an answer or an error in a line, and never a traceback."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from flowrun.cli import main
from flowrun.cli.asking import parse_arguments, parse_id, parse_json, parse_moment, show_json, show_rows
from flowrun.cli.exits import UsageError

DSN = ("--dsn", "postgresql://nobody.invalid/shop")

jsonish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["\x00", "\x1b[31m", "[red]x[/red]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
addresses = st.fixed_dictionaries(
    {"order_id": jsonish, "to": st.fixed_dictionaries({"street": jsonish}, optional={"lines": jsonish})},
    optional={"at": jsonish},
)
objects = st.dictionaries(st.text(max_size=6), jsonish, max_size=3) | addresses | jsonish
texts = st.one_of(
    objects.map(json.dumps),
    st.text(st.sampled_from('{}[]",:0123456789eE.-+ntfu\\\x00 '), max_size=25),
    st.sampled_from(["", "{", '{"a":1e999}', '{"a":NaN}', '{"a":"\\ud800"}', '{"a":"\\u0000"}', "[" * 2000, '{"value":' * 500, "-", "--help", "--", "null"]),
)  # fmt: skip
words = st.text(max_size=15) | st.sampled_from(["", "-1", "1e9", "2026-11-23T08:00:00+01:00", "2026-13-01", "0001-01-01", "9999-12-31T23:59:59-12:00",
                                               "running", "succeeded", "--", "--json", "01a20661-4f29-7643-a2d7-875b0f0776f1", "x" * 300, "\ud800"])  # fmt: skip
filters = st.lists(
    st.tuples(
        st.sampled_from(["--state", "--type", "--queue", "--tag", "--flow", "--since", "--until", "--before", "--limit", "--name", "--error",
                         "--args", "--older-than", "--actor", "--nonsense", "--json", "--all", "--dry-run"]),
        words,
    ),
    max_size=4,
).map(lambda pairs: [word for pair in pairs for word in (pair[:1] if pair[0] in ("--json", "--all", "--dry-run") else pair)])  # fmt: skip
commands = st.one_of(
    st.tuples(
        st.sampled_from(["jobs", "flows", "gates", "workers", "failed", "cancel", "retry", "delete", "prune"]), filters
    ).map(lambda pair: [pair[0], *pair[1], *DSN]),
    st.tuples(
        st.sampled_from(["failed", "schedules", "queues"]),
        st.sampled_from(["list", "retry", "discard", "remove", "x"]),
        words,
        filters,
    ).map(lambda four: [four[0], four[1], four[2], *four[3], *DSN]),
    st.tuples(st.sampled_from(["ship", "anything", "nobody", ""]), texts).map(
        lambda pair: ["dispatch", "tests.fuzz.shop:app", pair[0], pair[1], *DSN]
    ),
    st.lists(words, max_size=5).map(lambda many: [one for one in many if one not in ("demo", "serve", "migrate")]),
)
VALUES = st.tuples(commands, texts, words, st.lists(jsonish, max_size=3))


class Nothing(list[Any]):
    """What a database without a row answers to whatever it is asked."""

    jobs = flows = 0
    id = state = "-"
    reasons = ()


async def _nothing(app: Any, question: Any) -> Any:
    return Nothing()


def check(value: tuple[list[str], str, str, list[Any]]) -> None:
    typed, text, word, answers = value
    out, err = io.StringIO(), io.StringIO()
    with patch("flowrun.cli.asking._ask", _nothing), redirect_stdout(out), redirect_stderr(err):
        code = main(typed) if typed and typed[0] not in ("demo", "serve", "migrate") else 0
    assert code in (0, 1, 2), f"exit code {code}"
    assert "Traceback" not in err.getvalue()
    if code == 2:
        assert not out.getvalue()
        assert err.getvalue().strip()
    for parse in (
        lambda: parse_json("X", text),
        lambda: parse_arguments("X", text),
        lambda: parse_id(word),
        lambda: parse_moment("X", word),
    ):
        try:
            parse()
        except UsageError as error:
            assert str(error)
    with redirect_stdout(out), redirect_stderr(err):
        show_json(answers)
        for as_json in (True, False):
            show_rows(answers, {"a": lambda row: row, "b": str}, as_json=as_json, nothing="-")
