"""The fuzzing of python -m tests.fuzz, with few examples."""

from __future__ import annotations

import json
import traceback

import pytest
from hypothesis import HealthCheck, given, settings

from flowrun import ConfigurationError, Flowrun, any_of
from flowrun.core.compile import compile_flow
from flowrun.core.flow import Flow
from flowrun.core.job import JobSpec
from flowrun.core.states import Kind
from tests.core.test_compile import encode, mint
from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import TARGETS


def test_each_target_can_be_named() -> None:
    assert tuple(TARGETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_at_once(name: str) -> None:
    values, check = TARGETS[name]
    few = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    few(given(values)(check))()


# What was found.


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://@:hunter2@localhost",
        "postgresql://ann:hunter2@5@db/shop",
        "postgresql://db:5432,",
        "postgresql://ann:hunter2@,db/shop",
    ],
)
async def test_an_address_that_the_driver_stumbles_over_is_refused_and_not_told(dsn: str) -> None:
    """The driver's own error quoted what stands behind the first @: the end of a password with one in it."""
    with pytest.raises(ConfigurationError) as caught:
        async with Flowrun(dsn):
            pass
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told.replace(dsn, "")
    assert "5@db" not in str(caught.value)


def test_two_joins_of_a_node_have_names_of_their_own() -> None:
    flow = Flow("f")
    a, b, c, d = flow.group(*(JobSpec[None](name, ()) for name in "abcd"))
    flow.add(JobSpec[None]("e", ()), after=[any_of(a, b), any_of(c, d)])
    plan = compile_flow(flow, encode, json.dumps, mint).plan
    assert [row.name for row in plan.jobs if row.kind == Kind.JOIN] == ["e/(1 of 2)", "e/(1 of 2)-2"]
