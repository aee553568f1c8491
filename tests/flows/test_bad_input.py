"""Bad input is refused before anything is written, with its place named. The numbers are those of the reliability notes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from flowrun import ConfigurationError, InvalidArguments, InvalidFlow, any_of, at_least

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
async def nothing_written(app, connection: asyncpg.Connection):
    async with app:
        yield
    for table in ("jobs", "flows", "edges", "blocked", "ready", "scheduled"):
        assert not await connection.fetchval(f"select exists (select from flowrun.{table})")


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def circular() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


@dataclass
class Item:
    price: float = 0.0
    name: str = ""
    more: Any = None


class Model(BaseModel):
    price: float = 0.0
    any: Any = None


SECRET = "hunter2"
# What, the argument's annotation, what the message says of it. (row of the notes)
ARGUMENTS = [
    pytest.param({"items": [{"name": "a\x00b"}]}, Any, r"items\[0\]\.name.*NUL", id="1 NUL"),
    pytest.param({"k\x00": 1}, Any, "key.*NUL", id="1 NUL in a key"),
    pytest.param("a\x00b", str, "NUL", id="1 NUL in a str"),
    pytest.param(NAN, float, "nan", id="2 NaN"),
    pytest.param(INF, float, "inf", id="2 infinity"),
    pytest.param([1.0, NAN], list[float], r"\[1\].*nan", id="2 NaN in a list"),
    pytest.param({"a": [NAN]}, Any, "nan", id="2 NaN in anything"),
    pytest.param(Item(price=NAN), Item, "nan", id="2 NaN in a dataclass"),
    pytest.param(Model(price=NAN), Model, "nan", id="2 NaN in a model"),
    pytest.param([Model(any=[NAN])], list[Model], "nan", id="2 NaN inside a model"),
    pytest.param({NAN, 1.0}, set[float], "nan", id="2 NaN in a set"),
    pytest.param({"a": INF}, dict[str, float], "inf", id="2 infinity in a dict"),
    pytest.param("\ud800", str, "surrogate", id="6 surrogate"),
    pytest.param(["x", {"y": "\udfff"}], Any, "surrogate", id="6 surrogate inside"),
    pytest.param(object(), Any, "object", id="7 object"),
    pytest.param({1: "a"}, Any, "key", id="7 whole number as key"),
    pytest.param({1: "a", "1": "b"}, dict, "key", id="7 keys that would become one"),
    pytest.param({(1, 2): "a"}, Any, "key", id="7 tuple as key"),
    pytest.param([lambda: 1], Any, "function", id="7 function"),
    pytest.param({"x": type}, Any, "type", id="7 class"),
    pytest.param(10**5000, int, "64 bits|digits", id="8 five thousand digits"),
    pytest.param([2**64], Any, "64 bits", id="8 beyond 64 bits"),
    pytest.param(nested(10_000), Any, "nested deeper", id="9 deep"),
    pytest.param(nested(100_000), list, "nested deeper", id="9 deeper"),
    pytest.param(nested(300), Any, "nested deeper", id="9 just too deep"),
    pytest.param("x" * 2_000_000, str, r"1\.9 MiB as JSON, the limit is 1\.0 MiB", id="10 big"),
    pytest.param(circular(), Any, "circular", id="11 circular"),
    pytest.param(circular(), list, "circular", id="11 circular list"),
    pytest.param(Item(more=circular()), Item, "circular", id="11 circular in a dataclass"),
]


@pytest.mark.parametrize(("value", "kind", "says"), ARGUMENTS)
@pytest.mark.parametrize("way", ["handler", "by name", "flow", "many"])
async def test_arguments_that_cannot_be_stored(app, value: Any, kind: Any, says: str, way: str) -> None:
    async def take(value): ...

    if way == "by name":
        says += "|cannot be stored as JSON"  # only an annotation makes a list of a set: by name it is refused as it is
        spec = app.job("take", {"value": value})
    else:
        take.__annotations__ = {"value": kind}
        spec = app.handler("take")(take).job(value=value)
    with pytest.raises(InvalidArguments, match=f"(?s)({says})") as error:
        if way == "flow":
            flow = app.flow("f")
            flow.add(spec, name="the node")
            await flow.dispatch()
        elif way == "many":
            await app.dispatch_many([spec])
        else:
            await spec.dispatch()
    assert ("the node" in str(error.value)) is (way == "flow")
    assert "value" in str(error.value) or "limit is" in str(error.value) or "deeper" in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("way", ["handler", "by name"])
async def test_three_hundred_megabytes(app, way: str) -> None:
    @app.handler
    async def take(value: str) -> None: ...

    spec = take.job(value="x" * 300_000_000) if way == "handler" else app.job("other", {"value": "x" * 300_000_000})
    with pytest.raises(InvalidArguments, match=r"286\.1 MiB as JSON, the limit is 1\.0 MiB"):
        await spec.dispatch()


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'n'"),
        ((1, "a", 5), {}, "too many positional arguments"),
        ((1,), {"other": 2}, "unexpected keyword argument 'other'"),
        ((1,), {"n": 2}, "multiple values for argument 'n'"),
        (("x",), {}, "argument 'n'.*valid integer"),
        ((1.5,), {}, "argument 'n'.*integer"),
        ((None,), {}, "argument 'n'"),
        ((1,), {"text": 5}, "argument 'text'.*valid string"),
    ],
)
async def test_arguments_that_do_not_fit_the_handler(
    app, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    """Row 17."""

    @app.handler("take")
    async def take(n: int, text: str = SECRET) -> None: ...

    with pytest.raises(InvalidArguments, match=says) as error:
        await take.job(*args, **kwargs).dispatch()
    assert "take" in str(error.value)
    flow = app.flow("f")
    flow.add(take.job(*args, **kwargs), name="the node")
    with pytest.raises(InvalidArguments, match="the node"):
        await flow.dispatch()


async def test_the_value_is_not_in_the_message(app) -> None:
    @app.handler
    async def take(n: int) -> None: ...

    with pytest.raises(InvalidArguments) as error:
        await take.job(n=SECRET).dispatch()
    assert SECRET not in str(error.value)
    with pytest.raises(InvalidArguments) as error:
        await app.job("other", {"password": [SECRET, SECRET + "\x00"]}).dispatch()
    assert SECRET not in str(error.value)


async def test_keys_that_could_not_be_read_again(app) -> None:
    @app.handler
    async def take(value: dict[tuple[int, int], int]) -> None: ...

    with pytest.raises(InvalidArguments, match="argument 'value'.*tuple"):
        await take.dispatch(value={(1, 2): 3})


async def test_decimals_that_are_no_numbers(app) -> None:
    @app.handler
    async def take(price: Decimal) -> None: ...

    for value in (Decimal("NaN"), Decimal("Infinity"), NAN):
        with pytest.raises(InvalidArguments, match="price"):
            await take.job(price=value).dispatch()


# -- flows (rows 18 to 21) -----------------------------------------------------------------------------------------------


async def test_cycles(app, step) -> None:
    flow = app.flow("f")
    flow.add(step("a"), after="b", name="a")
    flow.add(step("b"), after="c", name="b")
    flow.add(step("c"), after="a", name="c")
    with pytest.raises(InvalidFlow, match="cycle: .*-> .* -> "):
        await flow.dispatch()
    flow = app.flow("f")
    flow.add(step("a"), after="a", name="a")
    with pytest.raises(InvalidFlow, match="cycle: a -> a"):
        await flow.dispatch()


async def test_unknown_and_foreign_nodes(app, step) -> None:
    flow, other = app.flow("f"), app.flow("other")
    theirs = other.add(step("theirs"), name="theirs")
    flow.add(step("a"), after="nobody", name="a")
    with pytest.raises(InvalidFlow, match="'a' .* unknown node 'nobody'"):
        await flow.dispatch()
    for after in (theirs, theirs.finished, any_of(theirs)):
        flow = app.flow("f")
        flow.add(step("a"), after=after, name="a")
        with pytest.raises(InvalidFlow, match="'a' .*'theirs' of another flow, 'other'"):
            await flow.dispatch()
    flow = app.flow("f")
    flow.add(step("a", given=theirs.result), name="a")
    with pytest.raises(InvalidFlow, match="'a' .*'theirs' of flow 'other'"):
        await flow.dispatch()
    with pytest.raises(InvalidFlow, match="only be used in that node's flow"):
        await step("a", given=theirs.result).dispatch()
    with pytest.raises(InvalidFlow, match="only be used in that node's flow"):
        await app.dispatch_many([step("a", given=[theirs.result["x"]])])


async def test_a_result_of_a_node_inside_another_flow(app, step) -> None:
    flow, inner = app.flow("f"), app.flow("inner")
    inside = inner.add(step("x"), name="x")
    flow.add(inner)
    flow.add(step("a", given=inside.result), name="a")
    with pytest.raises(InvalidFlow, match="'a' .*'x' of flow 'inner'"):
        await flow.dispatch()


async def test_names_that_are_taken(app, step) -> None:
    flow = app.flow("f")
    flow.group(step("a"), step("a"))
    flow.add(step("b"), name="same")
    flow.add(step("c"), name="same")
    with pytest.raises(InvalidFlow, match="two nodes named 'same'"):
        await flow.dispatch()


async def test_joins_that_make_no_sense(app, step) -> None:
    flow = app.flow("f")
    a = flow.add(step("a"), name="a")
    for make in (any_of, lambda: at_least(0, a), lambda: at_least(2, a), lambda: at_least(2, a, a)):
        with pytest.raises(InvalidFlow):
            flow.add(step("b"), after=make())
    flow.add(step("c"), after=at_least(2, a, "a"))
    with pytest.raises(InvalidFlow, match="twice"):
        await flow.dispatch()


async def test_too_deep(app, step) -> None:
    """Row 23."""
    flow = root = app.flow("f")
    for _ in range(1000):
        inner = app.flow("f")
        flow.add(inner)
        flow = inner
    flow.add(step("a"))
    with pytest.raises(InvalidFlow, match="deeper than"):
        await root.dispatch()


# -- options (rows 24, 28, 29) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1}, {"delay": NAN}, {"delay": INF}, {"delay": 1e20}, {"delay": True}, {"delay": "5"},
        {"priority": -1}, {"priority": 10}, {"priority": True}, {"priority": 1.0},
        {"attempts": 0}, {"attempts": -3}, {"attempts": True}, {"attempts": 10**9},
        {"timeout": 0}, {"timeout": -1}, {"timeout": NAN}, {"timeout": True},
        {"run_at": datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None)}, {"run_at": "2030-01-01"},
        {"queue": ""}, {"queue": "a\nb"}, {"queue": "x" * 1_000_000}, {"queue": "flowrun"}, {"queue": "a\x00"},
        {"tags": "word"}, {"optional": 1}, {"backoff": 5}, {"retry_on": "ValueError"}, {"unknown": 1},
    ],
    ids=lambda options: f"{options!a:.30}",
)  # fmt: skip
async def test_refused_options(app, step, options: dict[str, Any]) -> None:
    name = next(iter(options))
    for use in (
        lambda: app.job("x", **options),
        lambda: step("x").options(**options),
        lambda: app.flow("f", **options),
    ):
        with pytest.raises(ConfigurationError, match=name) as error:
            use()
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 1_000_000, "a\x00", " a", 5, None])
async def test_refused_names(app, step, name: Any) -> None:
    for use in (lambda: app.job(name), lambda: app.flow(name)):
        with pytest.raises(ConfigurationError):
            use()
    if name is not None:
        with pytest.raises(ConfigurationError):
            app.flow("f").add(step("a"), name=name)


async def test_far_times_are_no_error(app, step) -> None:
    step("x").options(run_at=datetime(9999, 12, 31, 23, 59, tzinfo=UTC), delay=0, timeout=1e-3)


REFUSED = {
    "compensate": (lambda flow, job: flow.add(job(), compensate="refund"), r"compensate= takes handler\.job"),
    "a flow to compensate": (lambda flow, job: flow.add(job(), compensate=flow), r"not Flow"),
    "optional": (lambda flow, job: flow.add(job(), optional="yes"), r"optional= takes True or False; got 'yes'"),
    "a map of a method": (lambda flow, job: flow.map(job, [1]), r"map\(\) takes a handler, or handler\.job"),
    "a map over a number": (lambda flow, job: flow.map(job(), 5), r"over= takes a list.*got 5"),
    "a map over a text": (lambda flow, job: flow.map(job(), "abc"), r"over= takes a list.*got 'abc'"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_node_that_is_refused_is_not_in_the_flow(app, what) -> None:
    """Who catches the error and goes on does not dispatch half of it."""

    @app.handler
    async def taken(n: int = 0) -> None: ...

    flow = app.flow("f")
    add, says = REFUSED[what]
    with pytest.raises(InvalidFlow, match=says):
        add(flow, taken.job)
    assert (flow.nodes, flow.compensations) == ([], [])
