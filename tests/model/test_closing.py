"""A flow is what its jobs are, and is undone where it must be, whatever is done to it where it ends."""

from __future__ import annotations

from random import Random

import pytest

from tests.model.closing import closing

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("seed", range(2))
async def test_verbs_where_flows_end(dsn: str, seed: int) -> None:
    random = Random(seed)
    async with closing(dsn) as here:
        for _ in range(3):
            await here.play(random, 12)
    assert len(here.done) >= 4, f"too little was done to be of any use: {here.done}"
