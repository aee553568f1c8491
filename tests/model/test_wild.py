"""Flows of every kind end, and the invariants hold, whatever is done to them meanwhile."""

from __future__ import annotations

from random import Random

import pytest

from tests.model.wild import wilderness

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("seed", range(2))
async def test_meddling(dsn: str, seed: int) -> None:
    random = Random(seed)
    async with wilderness(dsn) as here:
        for _ in range(3):
            await here.play(random, 12)
    assert len(here.done) >= 4, f"too little was done to be of any use: {here.done}"
