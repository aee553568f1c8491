"""Arguments and results by their annotations, there and back."""

from __future__ import annotations

import dataclasses
import enum
import typing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

import pydantic
import pytest

from flowrun import Flowrun, InvalidArguments


class Line(TypedDict):
    article: str
    count: NotRequired[int]


class Order(TypedDict, total=False):
    id: int
    lines: list[Line]
    other: Line | None


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Model(pydantic.BaseModel):
    price: Decimal
    point: Point | None = None


NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
VALUES: list[tuple[Any, Any]] = [
    (Line, {"article": "tea", "count": 2}),
    (Order, {"id": 1, "lines": [{"article": "tea"}], "other": None}),
    (list[Order], [{"id": 1}, {}]),
    (dict[str, Line] | None, {"a": {"article": "x"}}),
    (Colour, Colour.RED),
    (Point, Point(1, NOW)),
    (Model, Model(price=Decimal("1.10"), point=Point(2, NOW))),
    (UUID, UUID("01890000-0000-7000-8000-000000000000")),
    (datetime, NOW),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(seconds=90)),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Literal["a", "b"], "b"),
    (int, 2**53 + 1),
    (typing.Optional[float], None),  # noqa: UP045
    (Any, {"ä": [None, True, ""]}),
]


@pytest.mark.parametrize(("hint", "value"), VALUES, ids=[str(hint) for hint, _ in VALUES])
async def test_there_and_back(app: Flowrun, hint: Any, value: Any) -> None:
    seen = []

    async def echo(value):
        seen.append(value)
        return value

    echo.__annotations__ = {"value": hint, "return": hint}
    handler = app.handler("echo", attempts=1)(echo)
    async with app.worker(concurrency=1):
        run = await handler.dispatch(value)
        assert await run.result(timeout=10) == value
        flow = app.flow("f")
        first = flow.add(handler.job(value))
        flow.add(handler.job(first.result), name="second")
        assert await (await flow.dispatch()).result(timeout=10) == value
    assert seen == [value] * 3
    assert {type(one) for one in seen} == {type(value)}


async def test_a_wrong_typed_dict_is_refused_at_dispatch(app: Flowrun) -> None:
    @app.handler
    async def take(order: Order) -> None: ...

    async with app:
        with pytest.raises(InvalidArguments, match=r"take.*'order'.*lines"):
            await take.dispatch({"lines": [{"count": 1}]})  # type: ignore[typeddict-item]
