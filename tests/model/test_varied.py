"""Flows that grow, map, race, wait and undo come to what the reference says, and so do their retries."""

from __future__ import annotations

from random import Random

import pytest

from tests.model.playing import offence, playground, smallest
from tests.model.varied import random_flow

pytestmark = pytest.mark.timeout(300)  # a failure is made smaller, which takes a while


@pytest.mark.parametrize("seed", range(2))
async def test_flows_of_all_kinds(dsn: str, seed: int) -> None:
    random = Random(seed)
    async with playground(dsn) as here:
        flows = [random_flow(random) for _ in range(30)]
        problem = await offence(here, flows)
        assert problem is None, await smallest(here, flows, problem)
