"""Growth beside what ends at the same moment, and what waits for it by a choice or a race."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from flowrun import Job


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def together(app, order) -> Callable[..., object]:
    """Two handlers that end in one turn of the loop, so in one batch; one of them spawns what waits for the other."""
    met = asyncio.Barrier(2)

    @app.handler
    async def stored() -> int:
        await met.wait()
        return 1

    @app.handler
    async def begin(job: Job) -> None:
        spawned = job.spawn(slow.job(), name="spawned")
        job.spawn(note.job("late"), name="late", after=[spawned, "stored"])
        await met.wait()

    @app.handler
    async def slow() -> None:
        await asyncio.sleep(0.1)
        order.append("spawned")

    @app.handler
    async def note(name: str) -> None:
        order.append(name)

    return note


async def test_a_spawned_node_waits_for_all_when_a_stored_parent_ends_with_the_spawner(
    app, order, together, states
) -> None:
    flow = app.flow("f")
    stored = flow.add(app.job("stored"), name="stored")
    flow.add(app.job("begin"), name="begin")
    flow.add(together.job("never"), name="never", after=stored.failed)
    async with app, app.worker(concurrency=4):
        for _ in range(5):
            order.clear()
            found = await states(await flow.dispatch())
            assert order == ["spawned", "late"]
            assert found.pop("never") == "skipped"
            assert set(found.values()) == {"succeeded"}
