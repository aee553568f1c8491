"""Migrations as squawk sees them: nothing that locks a table which is in use for long, or takes away what others need."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from flowrun.store import migrate
from flowrun.store.migrate import Migration

SQUAWK = Path(sysconfig.get_path("scripts"), "squawk")
LEFT_OUT = {
    "prefer-robust-stmts": "all migrations of a run are one transaction: none fails part way",
    "require-lock-timeout": "the runner sets one, and tries again (flowrun/store/migrate.py)",
    "require-statement-timeout": "the same: who holds a lock for longer than that is a matter of the rules below",
    "prefer-bigint-over-smallint": "outcomes, kinds and flags; numbers that grow are bigint",
    "prefer-bigint-over-int": "the same",
    "prefer-identity": "there are no serial columns to be replaced",
    "prefer-text-field": "there are no others",
}
EXCEPTIONS = {
    (3, "jobs_retention"): "0.1.0 was not out: no table was large; and partial, so it writes next to nothing",
    (3, "keys_expires_at"): "0.1.0 was not out: no table was large",
    (7, "starts"): "what was claimed in the last stretch of a rate, and no more: a small table",
}
"""By migration and word of the statement: why it may do what squawk warns of."""


def look(step: Migration) -> list[dict[str, Any]]:
    command = [
        SQUAWK,
        "--reporter",
        "json",
        "--assume-in-transaction",
        "--pg-version",
        "14",
        "--stdin-filepath",
        "x.sql",
    ]
    run = subprocess.run(
        [*command, "--exclude", ",".join(LEFT_OUT)], input=step.text, capture_output=True, text=True, timeout=60
    )
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def unexcused(step: Migration) -> list[str]:
    lines = step.text.splitlines()
    return [
        f"{step.number} line {one['line'] + 1}: {one['rule_name']}: {one['message']}"
        for one in look(step)
        if not any(number == step.number and word in lines[one["line"]] for number, word in EXCEPTIONS)
    ]


@pytest.mark.parametrize("step", migrate.migrations()[1:], ids=lambda step: step.name)
def test_migrations_lock_nothing_for_long(step: Migration) -> None:
    assert unexcused(step) == []


def test_each_exception_is_one() -> None:
    steps = {step.number: step for step in migrate.migrations()}
    for number, word in EXCEPTIONS:
        assert any(word in steps[number].text.splitlines()[one["line"]] for one in look(steps[number])), word


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("create index more on flowrun.jobs (type)", "require-concurrent-index-creation"),
        ("alter table flowrun.jobs add column more integer not null", "adding-required-field"),
        ("alter table flowrun.jobs alter column type type varchar(10)", "changing-column-type"),
        ("alter table flowrun.jobs alter column tags set not null", "adding-not-nullable-field"),
        ("alter table flowrun.jobs drop column tags", "ban-drop-column"),
        ("alter table flowrun.jobs rename column tags to words", "renaming-column"),
        ("alter table flowrun.jobs rename to work", "renaming-table"),
        ("drop table flowrun.keys", "ban-drop-table"),
        ("alter table flowrun.jobs add constraint c check (priority < 5)", "constraint-missing-not-valid"),
        ("alter table flowrun.jobs add constraint c unique (type)", "disallowed-unique-constraint"),
        ("alter table flowrun.jobs add column more uuid default gen_random_uuid()", "adding-field-with-default"),
    ],
)
def test_what_would_be_found(text: str, rule: str) -> None:
    assert rule in {one["rule_name"] for one in look(Migration(900, "more", f"{text};"))}
    assert unexcused(Migration(900, "more", f"{text};"))
