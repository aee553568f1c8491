"""Flows in a rush on two workers, while people cancel, retry and decide: nobody deadlocks. The fixture of all tests
counts (``nobody_deadlocks``); ``python -m tests.flows.rush --flows 2000`` plays as many as one has time for."""

from __future__ import annotations

import pytest

from tests.flows import rush

FLOWS = 60


@pytest.mark.parametrize("load", rush.LOADS)
async def test_nobody_deadlocks(dsn: str, load: str) -> None:
    played = await rush.play(dsn, load, flows=FLOWS, seed=7)
    assert sum(played.states.values()) == FLOWS
    assert not played.states.keys() - {"succeeded", "failed", "cancelled"}
