"""What was dispatched is what arrives: values of whatever annotation come out equal, or are refused where they go in."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, model_validator

from flowrun import Flowrun, FlowrunError, InvalidArguments, Job, JobFailed, NotStorable, codec
from flowrun.registry import Returned, define
from flowrun.shapes import Misfit
from tests.flows.values import TYPED, Aliased, Computed, Leaky, Line, Plain, Secret, Sub, Swapped


def same(one: Any, two: Any) -> bool:
    """Equal, of the same types all through; written apart from what flowrun compares by."""
    if type(two) is tuple and type(one) is list:  # what is no tuple by its annotation is a list
        two = list(two)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        pairs = sorted(one.items(), key=repr), sorted(two.items(), key=repr)
        return len(one) == len(two) and all(
            same(a, b) for left, right in zip(*pairs, strict=True) for a, b in zip(left, right, strict=True)
        )
    if isinstance(one, list | tuple | deque):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, datetime):
        return one == two or (one.utcoffset(), one.replace(tzinfo=None, fold=0)) == (
            two.utcoffset(),
            two.replace(tzinfo=None, fold=0),
        )
    if isinstance(one, BaseModel):
        return same(
            {**vars(one), **(one.__pydantic_private__ or {})}, {**vars(two), **(two.__pydantic_private__ or {})}
        )
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    return bool(one == two)


def echo_of(hint: Any, seen: list[Any]) -> Any:
    async def echo(value):
        seen.append(value)
        return value

    echo.__annotations__ = {"value": hint, "return": hint}
    return echo


def _names_the_argument(error: Exception) -> None:
    assert "argument 'value" in str(error)


def converted(definition: Any, value: Any) -> Any:
    """What the annotation makes of it: that is what is compared."""
    return definition._shape("value").checked(value)


@given(TYPED)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_comes_out_of_the_codec_equal_or_does_not_go_in(typed: tuple[Any, Any]) -> None:
    hint, value = typed
    definition = define(echo_of(hint, []), "echo", {})
    try:
        plain = definition.plain("value", value, "job 'echo'")
        text = codec.dump({"value": plain})
    except InvalidArguments as error:
        _names_the_argument(error)
    except NotStorable:
        pass
    else:
        given = converted(definition, value)
        assert same(definition.decode(text)["value"], given), text
        assert same(definition.decode_value(codec.load(text))["value"], given), text
    returned = Returned(definition.function)
    try:
        text = returned.dump(value)
    except (NotStorable, Misfit):
        return
    back = returned.load(text)
    assert value is None or same(back, value) or same(back, converted(definition, value)), text


@given(st.lists(TYPED, min_size=20, max_size=20))
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_comes_out_of_the_database_equal_or_does_not_go_in(dsn: str, many: list[tuple[Any, Any]]) -> None:
    asyncio.run(_through_the_database(dsn, many))


async def _through_the_database(dsn: str, many: list[tuple[Any, Any]]) -> None:
    app = Flowrun(dsn)
    seen: list[list[Any]] = [[] for _ in many]
    handlers = [app.handler(f"echo{n}")(echo_of(hint, seen[n])) for n, (hint, _) in enumerate(many)]
    async with app.worker(concurrency=5):
        for n, (_, value) in enumerate(many):
            try:
                run = await handlers[n].dispatch(value=value)
            except InvalidArguments as error:
                _names_the_argument(error)
                continue
            given = converted(app.registry.get(f"echo{n}"), value)
            back = await run.result(timeout=20)
            assert len(seen[n]) == 1
            assert same(seen[n][0], given), many[n]
            assert same(back, given) or value is None, many[n]


class Private(BaseModel):
    n: int
    _own: int = PrivateAttr(0)


class Growing(BaseModel):
    n: int

    @model_validator(mode="after")
    def grow(self) -> Growing:
        self.n += 1
        return self


@dataclass
class Salted:
    n: int
    salt: InitVar[int]


def private() -> Private:
    one = Private(n=1)
    one._own = 2
    return one


REFUSED: list[tuple[Any, Any, str]] = [
    (Secret, Secret(password="hunter2"), "password.*SecretStr"),
    (SecretStr, SecretStr("hunter2"), "SecretStr"),
    (list[Secret], [Secret(password="hunter2")], r"\[0\].password"),
    (Plain, Sub(n=1, more=2), "a Sub, which would arrive as a Plain"),
    (Leaky, Leaky(hidden=7), "hidden"),
    (Private, private(), "_own"),
    (Growing, Growing(n=1), "n"),
    (Salted, Salted(1, 2), "salt"),
    (datetime | str, "2026-01-01T00:00:00", "a str, which would arrive as a datetime"),
    (UUID | str, str(UUID(int=1)), "a str, which would arrive as a UUID"),
    (dict[str, Any], {"at": datetime(2026, 1, 1, tzinfo=UTC)}, "at.*datetime"),
    (Line, Line("pen", 1.5), "price"),  # type: ignore[arg-type]
]
TAKEN: list[tuple[Any, Any]] = [
    (Aliased, Aliased(orderId=1, sum=5)),
    (Swapped, Swapped(a=1, b=2)),
    (Computed, Computed(n=4)),
    (dict[int, str], {1: "a"}),
    (float, 1e17),
    (dict[str, Any], {"x": 1.5e18}),
    (timedelta | None, timedelta(seconds=1.5)),
]


@pytest.mark.parametrize(("hint", "value", "says"), REFUSED)
async def test_what_would_arrive_as_another_is_refused_where_it_goes_in(app, hint: Any, value: Any, says: str) -> None:
    echo = app.handler("echo")(echo_of(hint, []))
    with pytest.raises(InvalidArguments, match=f"(?s)argument 'value.*{says}") as error:
        await echo.dispatch(value=value)
    assert "hunter2" not in str(error.value)

    async def make():
        return value

    async def tell(job: Job) -> str:
        async def step():
            return value

        step.__annotations__ = {"return": hint}
        try:
            await job.step("made", step)
        except (NotStorable, FlowrunError) as refused:
            return str(refused)
        return "taken"

    make.__annotations__ = {"return": hint}
    made, told = app.handler("make", attempts=5)(make), app.handler("tell")(tell)
    async with app.worker(concurrency=1):
        with pytest.raises(JobFailed, match="(?s)the result cannot be stored") as failed:
            await (await made.dispatch()).result(timeout=10)
        assert failed.value.attempts == 1
        assert "step 'made'" in await (await told.dispatch()).result(timeout=10)
        with pytest.raises(InvalidArguments, match="the result cannot be stored"):
            await (await made.job().options(delay=600.0).dispatch()).resolve(value)


@pytest.mark.parametrize(("hint", "value"), TAKEN)
async def test_arguments_results_steps_and_parents_results_go_one_way(app, hint: Any, value: Any) -> None:
    seen: list[Any] = []
    echo = app.handler("echo")(echo_of(hint, seen))

    async def remember(job: Job, value):
        async def step():
            return value

        step.__annotations__ = {"return": hint}
        return await job.step("made", step)

    remember.__annotations__ |= {"value": hint, "return": hint}
    again = app.handler("remember")(remember)
    flow = app.flow("f")
    first = flow.add(echo.job(value=value), name="first")
    second = flow.add(again.job(value=first.result), name="second")
    flow.map(echo, over=[value, value], after=second, name="items")
    async with app.worker(concurrency=2):
        run = await flow.dispatch()
        await run.wait(timeout=20)
        assert same(await run["first"].result(timeout=1), value)
        assert same(await run["second"].result(timeout=1), value)
        assert same(await (await echo.dispatch(value=value)).result(timeout=10), value)
        held = await echo.job(value=value).options(delay=600.0).dispatch()
        await held.resolve(value)
        assert same(await held.result(timeout=10), value)
    assert len(seen) == 4
    assert all(same(one, value) for one in seen)


async def test_a_field_with_an_alias_is_a_path_by_its_name(app) -> None:
    @app.handler
    async def make() -> Aliased:
        return Aliased(orderId=7)

    @app.handler
    async def take(order: int) -> int:
        return order

    flow = app.flow("f")
    flow.add(take.job(order=flow.add(make.job()).result.order_id), name="take")
    async with app.worker(concurrency=1):
        assert await (await flow.dispatch()).result(timeout=10) == 7
        by_alias = await app.job("take", {"order": 3}).dispatch()
        assert await by_alias.result(timeout=10) == 3


async def test_by_name_and_in_signals_no_secret_is_stored_as_stars(app, step) -> None:
    with pytest.raises(InvalidArguments, match="one.password"):
        await app.job("elsewhere", {"one": Secret(password="hunter2")}).dispatch()
    flow = app.flow("f")
    flow.wait_for("approved")
    run = await _dispatched(app, flow)
    async with app:
        with pytest.raises(InvalidArguments, match="signal 'approved'.*password"):
            await run.signal("approved", Secret(password="hunter2"))


async def _dispatched(app: Flowrun, flow: Any) -> Any:
    async with app:
        return await flow.dispatch()


async def test_any_keywords_are_converted_as_annotated(app) -> None:
    @app.handler
    async def wait(**more: timedelta) -> timedelta:
        return sum(more.values(), timedelta())

    async with app.worker(concurrency=1):
        run = await wait.dispatch(a=timedelta(seconds=1), b=timedelta(seconds=2))
        assert await run.result(timeout=10) == timedelta(seconds=3)


async def test_names_that_are_local_where_the_handler_is_written(app) -> None:
    class Local(BaseModel):
        n: int = Field(alias="N")

    @app.handler
    async def take(one: Local) -> Local:
        assert type(one) is Local
        return one

    async with app.worker(concurrency=1):
        assert await (await take.dispatch(Local(N=3))).result(timeout=10) == Local(N=3)


async def test_an_annotation_that_nobody_can_convert_is_said_at_dispatch(app) -> None:
    class Foreign:
        pass

    @app.handler
    async def take(one: Foreign) -> None: ...

    with pytest.raises(InvalidArguments, match="parameter 'one': its annotation cannot be converted"):
        await take.dispatch(one=Foreign())
