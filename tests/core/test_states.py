"""The truth table of the public contract, row by row."""

from __future__ import annotations

import pytest

from flowrun.core.states import TERMINAL, Condition, Outcome, satisfies

S, F, C, K = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED
TABLE = [
    # outcome, optional, satisfies succeeded / failed / finished
    (S, False, True, False, True),
    (S, True, True, False, True),
    (F, False, False, True, True),
    (F, True, True, True, True),
    (C, False, False, False, True),
    (C, True, False, False, True),
    (K, False, False, False, True),
    (K, True, False, False, True),
]


@pytest.mark.parametrize(("outcome", "optional", "succeeded", "failed", "finished"), TABLE)
def test_truth_table(outcome: Outcome, optional: bool, succeeded: bool, failed: bool, finished: bool) -> None:
    assert satisfies(outcome, Condition.SUCCEEDED, optional=optional) is succeeded
    assert satisfies(outcome, Condition.FAILED, optional=optional) is failed
    assert satisfies(outcome, Condition.FINISHED, optional=optional) is finished


def test_the_table_is_complete() -> None:
    assert {(row[0], row[1]) for row in TABLE} == {(outcome, flag) for outcome in Outcome for flag in (True, False)}


def test_terminal_states_are_the_outcomes() -> None:
    assert {outcome.name.lower() for outcome in Outcome} == TERMINAL


def test_stored_numbers_do_not_change() -> None:
    assert [int(outcome) for outcome in (S, F, C, K)] == [1, 2, 3, 4]
    assert [int(Condition[name]) for name in ("SUCCEEDED", "FAILED", "FINISHED")] == [0, 1, 2]
