"""What users' type checkers see: right programs pass, each wrong line is found, by mypy and by pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def mypy_lines(file: Path) -> set[int]:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", str(file)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return {int(match[1]) for match in re.finditer(rf"{file.name}:(\d+): error", run.stdout)} or _only_ok(run)


def _only_ok(run: subprocess.CompletedProcess[str]) -> set[int]:
    assert run.returncode == 0, run.stdout + run.stderr
    return set()


def pyright_lines(file: Path) -> set[int]:
    run = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error", "--pythonpath", sys.executable, str(file)],
        cwd=HERE, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(run.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


def wrong_lines(file: Path) -> set[int]:
    return {number for number, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# wrong")}


@pytest.mark.parametrize("check", [mypy_lines, pyright_lines])
def test_a_right_program_passes(check) -> None:
    assert check(HERE / "good.py") == set()


@pytest.mark.parametrize("check", [mypy_lines, pyright_lines])
def test_each_mistake_is_found_and_nothing_else(check) -> None:
    assert check(HERE / "bad.py") == wrong_lines(HERE / "bad.py")
