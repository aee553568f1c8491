"""What the documents say of tests is so: each one that is named exists, and the tables have all their rows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(?:tests/)?([\w/]+\.py)::(\w+)`")
BAD_INPUTS = ROOT / "docs" / "bad-inputs.md"
WITHOUT_TEST = {40}
"""Rows about what is not there yet."""


def functions(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def rows() -> dict[int, str]:
    found = re.findall(r"^\| (\d+) \|(.*)$", BAD_INPUTS.read_text(), re.MULTILINE)
    assert len(found) == len({number for number, _ in found})
    return {int(number): row for number, row in found}


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    missing = [
        f"{file}::{name}"
        for file, name in NAMED.findall(document.read_text())
        if not (ROOT / "tests" / file).exists() or name not in functions(ROOT / "tests" / file)
    ]
    assert not missing


def test_all_forty_bad_inputs_are_there_and_each_has_its_test() -> None:
    assert sorted(rows()) == list(range(1, 41))
    assert {number for number, row in rows().items() if not NAMED.search(row)} == WITHOUT_TEST


def test_the_other_bad_inputs_have_their_tests() -> None:
    text = BAD_INPUTS.read_text()
    table = text[text.index("\n| input | what flowrun does") : text.index("Besides, generated values")]
    others = [row for row in table.splitlines()[3:] if row.startswith("|")]
    assert len(others) >= 11
    assert [row for row in others if not NAMED.search(row)] == []


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_tables_are_whole(document: Path) -> None:
    """Each table has a head and a rule below it: a paragraph in its middle would make text of the rows behind it."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert [table for table in tables if not re.match(r"\|.*\n\|[ :|-]+\n", table)] == []
