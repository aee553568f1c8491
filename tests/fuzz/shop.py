"""A program for the command line, whose dispatches go nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from flowrun import Flowrun


class Shop(Flowrun):
    """It compiles and encodes what it is asked for, and stores nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


@dataclass
class Address:
    street: str
    lines: list[str] | None = None


app = Shop("postgresql://nobody.invalid/shop")


async def _write(plan: Any, tx: object = None) -> Mapping[UUID, UUID]:
    assert all(isinstance(row.args, str) for row in plan.jobs)
    return {}


app.client.write = _write  # type: ignore[method-assign]


@app.handler
async def ship(order_id: int, to: Address, at: datetime | None = None, **more: Any) -> None: ...


@app.handler
async def anything(value: Any = None) -> None: ...
