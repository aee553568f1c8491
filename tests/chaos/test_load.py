"""A thousand dispatchers at once, and a deep queue: nobody is refused, no lease is lost, memory stays where it is."""

from __future__ import annotations

import pytest

from tests.chaos import load

pytestmark = pytest.mark.timeout(180)


async def test_a_thousand_dispatchers_at_once(dsn: str) -> None:
    answers = await load.serve(dsn, 1000, 1)
    assert answers.refused == 0
    assert len(answers.seconds) == answers.ran == 1000
    assert answers.least_lease > 0, "the heartbeats were starved"


async def test_a_worker_takes_no_more_than_it_can_run(dsn: str) -> None:
    before, after, ran = await load.deep_queue(dsn, 12_000, 60.0)
    assert ran == 12_000
    assert after - before < 64 * 2**20
