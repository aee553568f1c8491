"""What flows return, and values on their way from handler to handler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel

from flowrun import FlowFailed, JobFailed, any_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    item: str
    price: Decimal


@dataclass
class Receipt:
    id: UUID
    at: datetime
    lines: list[Line] = field(default_factory=list)
    colour: Colour = Colour.RED


class Person(BaseModel):
    name: str
    born: date


class Box(TypedDict):
    wide: int
    owner: Person


RECEIPT = Receipt(UUID(int=7), datetime(2026, 3, 29, 1, 30, tzinfo=UTC), [Line("pen", Decimal("1.10"))], Colour.BLUE)
PERSON = Person(name="Ann", born=date(1990, 1, 2))


# -- the result of a flow ------------------------------------------------------------------------------------------------


async def test_a_single_last_node(app, step) -> None:
    async with app.worker(concurrency=2):
        assert await (await app.chain(step("a"), step("b")).dispatch()).result(timeout=10) == "b"


async def test_several_last_nodes(app, step) -> None:
    flow = app.flow("f")
    a = flow.add(step("a"), name="a")
    flow.add(step("b"), after=a, name="b")
    flow.add(step("c"), after=a.failed, name="c")
    flow.add(step("d", fail=True, optional=True), after=a, name="d")
    async with app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) == {"b": "b", "c": None, "d": None}


async def test_last_nodes_behind_joins_and_beside_skips(app, step) -> None:
    """The end of the flow waits for more than its last nodes; its result is theirs alone."""
    flow = app.flow("f")
    a, b = flow.add(step("a"), name="a"), flow.add(step("b"), name="b")
    flow.add(step("c"), after=any_of(a, b), name="c")
    flow.add(step("d"), after=[a, b], name="d")
    flow.add(step("e"), after=[a, any_of("c", b.failed)], name="e")
    flow.on_finish(step("f", given=b.result), name="f")
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == {"d": "d", "e": "e"}
        assert await (await app.get_flow(run.id)).result(timeout=10) == {"d": "d", "e": "e"}
        await run["f"].result(timeout=10)


@pytest.mark.parametrize("by_name", [True, False])
async def test_output_says_which(app, step, by_name: bool) -> None:
    flow = app.flow("f", output="b")
    a = flow.add(step("a"), name="a")
    b = flow.add(step("b"), after=a, name="b")
    flow.add(step("c"), after=b, name="c")
    if not by_name:
        flow.output = b
    async with app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) == "b"


async def test_a_single_last_node_that_was_skipped_gives_none(app, step) -> None:
    @app.handler
    async def refund() -> Receipt:
        raise AssertionError

    flow = app.flow("f")
    flow.add(refund.job(), after=flow.add(step("pay")).failed)
    async with app.worker(concurrency=2):
        assert await (await flow.dispatch()).result(timeout=10) is None


async def test_a_failed_flow_names_every_culprit_and_one_reason(app, step) -> None:
    flow = app.flow("f")
    flow.add(step("a", fail=True), name="a")
    flow.add(step("b", fail=True), name="b")
    flow.add(step("c", fail=True, optional=True), name="c")
    flow.add(step("d"), after="a", name="d")
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        with pytest.raises(FlowFailed, match=r"flow 'f' .* failed: .*ValueError: [ab] broke") as failure:
            await run.result(timeout=10)
    assert sorted(failure.value.failed) == ["a", "b"]
    assert (failure.value.name, failure.value.id) == ("f", run.id)


# -- values --------------------------------------------------------------------------------------------------------------


async def test_types_survive_the_way_to_the_handler_and_back(app) -> None:
    @app.handler
    async def same(
        receipt: Receipt, person: Person, box: Box, moment: datetime, day: date, id: UUID, price: Decimal,
        colour: Colour, lines: list[Line], maybe: Receipt | None = None,
    ) -> Receipt:  # fmt: skip
        assert (receipt, person, lines, maybe) == (RECEIPT, PERSON, RECEIPT.lines, None)
        assert box == {"wide": 3, "owner": PERSON}
        assert (moment, day, id, price, colour) == (RECEIPT.at, PERSON.born, RECEIPT.id, Decimal("0.10"), Colour.RED)
        return receipt

    async with app.worker(concurrency=1):
        run = await same.dispatch(
            receipt=RECEIPT, person=PERSON, box={"wide": 3, "owner": PERSON}, moment=RECEIPT.at, day=PERSON.born,
            id=RECEIPT.id, price=Decimal("0.10"), colour=Colour.RED, lines=RECEIPT.lines,
        )  # fmt: skip
        assert await run.result(timeout=10) == RECEIPT


CASES: list[tuple[Any, Any]] = [
    (Receipt, RECEIPT),
    (Person, PERSON),
    (Box, {"wide": 3, "owner": PERSON}),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))),
    (date, date(2000, 2, 29)),
    (timedelta, timedelta(days=2, microseconds=3)),
    (UUID, UUID(int=2**127)),
    (Decimal, Decimal("123456789012345678901234567890.123456789")),
    (Colour, Colour.BLUE),
    (list[Receipt], [RECEIPT, RECEIPT]),
    (dict[str, Decimal], {"a": Decimal("1.0")}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (int, 2**53 + 1),
    (int, -(2**63)),
    (float, 0.1 + 0.2),
    (str, "größe 📮 \u2028 \\ \" '"),
    (bool, False),
    (Person | None, None),
    (Any, {"nested": [1, None, {"deep": []}]}),
]


@pytest.mark.parametrize(("kind", "value"), CASES)
async def test_results_and_arguments_of_each_type(app, kind: Any, value: Any) -> None:
    async def echo(value):
        assert type(value) is type(given)
        return value

    given = value
    echo.__annotations__ = {"value": kind, "return": kind}
    handler = app.handler("echo")(echo)
    flow = app.flow("f")
    first = flow.add(handler.job(value=value))
    flow.add(handler.job(value=first.result), name="second")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        assert await run.result(timeout=10) == value
        assert await (await handler.dispatch(value=value)).result(timeout=10) == value


async def test_keys_whose_type_is_annotated(app) -> None:
    @app.handler
    async def take(numbers: dict[int, str], ids: dict[UUID, int]) -> bool:
        return (numbers, ids) == ({1: "a", 2: "b"}, {UUID(int=1): 1})

    async with app.worker(concurrency=1):
        assert await (await take.dispatch(numbers={1: "a", 2: "b"}, ids={UUID(int=1): 1})).result(timeout=10)


@pytest.mark.parametrize("value", [None, "", [], {}, False, 0, 0.0])
async def test_empty_results_are_ordinary(app, value: Any) -> None:
    seen = []

    @app.handler
    async def make() -> Any:
        return value

    @app.handler
    async def take(value: Any) -> None:
        seen.append(value)

    flow = app.flow("f")
    flow.add(take.job(value=flow.add(make.job()).result))
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        await run.result(timeout=10)
        assert await run["make"].result(timeout=10) == value
    assert seen == [value]
    assert type(seen[0]) is type(value)


async def test_references_anywhere_in_the_arguments(app) -> None:
    seen = []

    @app.handler
    async def make() -> Receipt:
        return RECEIPT

    @app.handler
    async def take(whole: Receipt, prices: list[Decimal], mixed: dict[str, Any]) -> None:
        seen.append((whole, prices, mixed))

    flow = app.flow("f")
    made = flow.add(make.job())
    flow.add(
        take.job(
            whole=made.result,
            prices=[made.result.lines[0].price, Decimal(2)],
            mixed={"id": made.result.id, "in": [{"colour": made.result.colour}], "plain": 1},
        )
    )
    async with app.worker(concurrency=1):
        await (await flow.dispatch()).result(timeout=10)
    assert seen == [
        (
            RECEIPT,
            [Decimal("1.10"), Decimal(2)],
            {"id": str(RECEIPT.id), "in": [{"colour": "blue"}], "plain": 1},
        )
    ]


async def test_a_parent_that_did_not_succeed_gives_none(app, step) -> None:
    seen = []

    @app.handler
    async def take(bad: Any, part: Any, skipped: Any) -> None:
        seen.append((bad, part, skipped))

    flow = app.flow("f")
    bad = flow.add(step("bad", fail=True), name="bad")
    skipped = flow.add(step("skipped"), after=bad, name="skipped")
    flow.add(
        take.job(bad=bad.result, part=bad.result["x"][0], skipped=skipped.result),
        after=[bad.finished, skipped.finished],
    )
    async with app.worker(concurrency=1):
        await (await flow.dispatch()).wait(timeout=10)
    assert seen == [(None, None, None)]


@pytest.mark.parametrize(("result", "why"), [({"a": 1}, "has no"), ({"id": "no number"}, "valid integer")])
async def test_a_reference_that_does_not_fit_fails_at_once_and_clearly(app, result: Any, why: str) -> None:
    @app.handler
    async def make() -> Any:
        return result

    @app.handler(attempts=5)
    async def take(id: int) -> None:
        raise AssertionError

    flow = app.flow("f")
    flow.add(take.job(id=flow.add(make.job()).result["id"]), name="take")
    async with app.worker(concurrency=1):
        run = await flow.dispatch()
        with pytest.raises(JobFailed, match=why) as failure:
            await run["take"].result(timeout=10)
    assert failure.value.attempts == 1
    assert "InvalidArguments" in failure.value.error_type
    assert "'id'" in failure.value.message


async def test_a_retry_sees_the_same_input(app, step) -> None:
    """The child is released by the first parent and tried again when the second has ended too."""
    seen = []
    release, ended = asyncio.Event(), asyncio.Event()

    @app.handler
    async def slow() -> str:
        await release.wait()
        return "slow"

    @app.handler(attempts=2, backoff=lambda attempt: 0.0)
    async def pick(values: list[Any]) -> None:
        seen.append(values)
        if len(seen) == 1:
            release.set()
            await ended.wait()
            raise ValueError

    flow = app.flow("f")
    a, b = flow.add(step("a"), name="a"), flow.add(slow.job(), name="b")
    flow.add(pick.job(values=[a.result, b.result]), after=any_of(a, b), name="pick")
    async with app.worker(concurrency=4):
        run = await flow.dispatch()
        await run["b"].wait(timeout=10)
        ended.set()
        await run.wait(timeout=10)
    assert seen == [["a", None], ["a", None]]
