"""Random flows on a real database come to what the reference says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flowrun.testing import databases
from tests.conftest import DeadlockWatch
from tests.model.stage import Stage, stage
from tests.model.written import random_flow


@pytest.fixture(scope="module")
def here(flowrun_postgres_server: tuple[str, str], deadlock_watch: DeadlockWatch) -> Iterator[Stage]:
    server, template = flowrun_postgres_server
    dsn = asyncio.run(databases.create(server, template))
    with stage(dsn) as here:
        yield here
    deadlock_watch.check(dsn)
    asyncio.run(databases.drop(server, dsn))


pytestmark = pytest.mark.timeout(400)  # a failure is made smaller, which takes a while


@settings(
    max_examples=14,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(random=st.randoms(use_true_random=False))
def test_small_flows(here: Stage, random: Random) -> None:
    """Few nodes, many corners."""
    here.play([random_flow(random, most=8) for _ in range(8)])


@pytest.mark.parametrize("seed", range(6))
def test_large_flows(here: Stage, seed: int) -> None:
    """Twenty flows of up to forty nodes, side by side."""
    random = Random(seed)
    here.play([random_flow(random) for _ in range(20)])
