"""What keeps flowrun's loops from their work is said at once, at a bounded rate, and at the end."""

from __future__ import annotations

import logging

import asyncpg
import pytest

from flowrun.client import troubles
from flowrun.client.troubles import Troubles
from flowrun.errors import DatabaseUnavailable, FlowrunError
from flowrun.store.blame import Fault, fault_of


def full() -> asyncpg.PostgresError:
    return asyncpg.exceptions.DiskFullError("could not extend file")


def test_it_is_said_at_once_then_rarely_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = [1000.0]
    monkeypatch.setattr(troubles, "monotonic", lambda: now[0])
    of = Troubles()
    pauses = []
    for _ in range(600):
        pauses.append(of.met("settle", full()))
        now[0] += 1.0
    assert len(caplog.records) < 12
    assert caplog.records[0].levelno == logging.ERROR
    assert "cannot settle (could not extend file) [SQLSTATE 53100]; trying again" in caplog.messages[0]
    assert pauses[0] < 0.2
    assert 3.0 < pauses[-1] < 7.0
    [one] = of.now()
    assert (one.what, one.times) == ("settle: could not extend file", 600)
    of.over("settle")
    assert "it is possible again to settle" in caplog.messages[-1]
    assert of.now() == []


def test_what_comes_and_goes_is_not_said_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    of = Troubles()
    for _ in range(100):
        assert of.met("claim", full()) < 0.2
        assert of.now()
        of.over("claim")
        assert not of
    assert len(caplog.records) <= 4


def test_a_link_is_an_error_when_it_fails_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    of = Troubles()
    for _ in range(troubles.OFTEN):
        of.met("claim", ConnectionResetError("cut"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (asyncpg.exceptions.RaiseError("x"), Fault.SERVER),
        (asyncpg.exceptions.OutOfMemoryError("x"), Fault.SERVER),
        (asyncpg.exceptions.InternalServerError("x"), Fault.SERVER),
        (asyncpg.exceptions.QueryCanceledError("x"), Fault.SERVER),
        (asyncpg.exceptions.InsufficientPrivilegeError("x"), Fault.SERVER),
        (asyncpg.exceptions.UndefinedFunctionError("x"), Fault.SERVER),
        (asyncpg.exceptions.NumericValueOutOfRangeError("x"), Fault.DATA),
        (asyncpg.exceptions.CheckViolationError("x"), Fault.DATA),
        (asyncpg.exceptions.ProgramLimitExceededError("x"), Fault.DATA),
        (asyncpg.exceptions._base.DataError("x"), Fault.DATA),
        (ValueError("x"), Fault.DATA),
        (FlowrunError("x"), Fault.DATA),
        (asyncpg.exceptions.DeadlockDetectedError("x"), Fault.AGAIN),
        (asyncpg.exceptions.AdminShutdownError("x"), Fault.LINK),
        (asyncpg.InterfaceError("x"), Fault.LINK),
        (ConnectionResetError("x"), Fault.LINK),
        (DatabaseUnavailable("x"), Fault.LINK),
        (AssertionError("x"), Fault.SERVER),
    ],
)
def test_whose_fault_it_is(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault
