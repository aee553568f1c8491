"""Flow runs drawn as trees: every node once, whatever its name looks like."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun import Flowrun
from flowrun.cli.drawing import stored_lines
from flowrun.client.statuses import FlowStatus

NAMES = ["/", "//", "/a", "a/", "a", "a/b", "a//b", "b/a", "b", "///"]


def lines(names: list[str], waits: list[tuple[str, str, int]]) -> list[str]:
    return [line.name for line in stored_lines(cast(FlowStatus, SimpleNamespace(nodes=dict.fromkeys(names))), waits)]


@given(
    st.lists(st.sampled_from(NAMES) | st.text("/ab", min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    st.data(),
)
def test_every_node_is_drawn_once(names: list[str], data: Any) -> None:
    pairs = st.sampled_from(list(product(names, names)))
    waits = data.draw(st.lists(st.tuples(pairs, st.integers(0, 2)), max_size=10))
    drawn = lines(names, [(*pair, condition) for pair, condition in waits])
    assert len(drawn) == len(set(drawn))
    assert set(names) <= set(drawn)


@pytest.mark.parametrize("name", NAMES)
async def test_show_ends_for_names_made_of_slashes(typed: Any, app: Flowrun, name: str) -> None:
    flow = app.flow("slashes")
    flow.add(app.job("x"), name=name)
    inner = app.flow("inner")
    inner.add(app.job("x"), name=name)
    inner.add(app.job("x"), name="other", after=name)
    flow.add(inner, name="in", after=name)
    async with app:
        run = await flow.dispatch()
    code, out, _ = await typed("show", str(run.id))
    assert code == 0
    assert name in out
    assert "in/other" in out
