from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import pytest

from flowrun import FlowRun, Flowrun
from tests.model import invariants


@pytest.fixture(autouse=True)
def consistent(dsn: str) -> Iterator[None]:
    """Whatever a test did, what it leaves in the database obeys the invariants."""
    yield
    asyncio.run(check(dsn))


async def check(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await invariants.check(connection, at_rest=False)
    finally:
        await connection.close()


@pytest.fixture
def ran(app: Flowrun) -> list[str]:
    """The names of the ``step`` jobs that ran, in order; ``step`` fails where it is told to."""
    names: list[str] = []

    @app.handler("step", attempts=1)
    async def step(name: str = "step", fail: bool = False, given: object = None) -> str:
        names.append(name)
        if fail:
            raise ValueError(f"{name} broke")
        return name

    return names


@pytest.fixture
def step(app: Flowrun, ran: list[str]) -> Callable[..., object]:
    """``step("name", fail=True, optional=True)``: a job of that type."""

    def make(name: str, *, fail: bool = False, given: object = None, **options: object) -> object:
        return app.job("step", {"name": name, "fail": fail, "given": given}, **options)

    return make


@pytest.fixture
def states() -> Callable[[FlowRun], Awaitable[dict[str, str]]]:
    """The states of all jobs of a flow that has ended."""

    async def of(run: FlowRun) -> dict[str, str]:
        return {name: job.state for name, job in (await run.wait(timeout=20)).nodes.items()}

    return of
