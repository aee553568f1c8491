"""Annotations that people write and values for them, generated: what the property test of values is made of."""

# ruff: noqa: UP007, UP045, DTZ001 - annotations as people write them

from __future__ import annotations

import enum
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, RootModel, SecretStr, computed_field
from pydantic import dataclasses as pydantic_dataclasses
from typing_extensions import TypeAliasType, TypedDict

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Plain(BaseModel):
    n: int
    s: str = "x"


class Sub(Plain):
    more: int = 0


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")
    total: int = Field(1, validation_alias=AliasChoices("sum", "total_sum"), serialization_alias="amount")


class Swapped(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    n: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.n


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    n: int


class Secret(BaseModel):
    password: SecretStr


class Leaky(BaseModel):
    n: int = 0
    hidden: int = Field(0, exclude=True)
    _own: int = PrivateAttr(0)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    parts: tuple[int, ...]
    word: Word


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Box(BaseModel, Generic[T]):
    inside: T


class Tree(BaseModel):
    n: int
    children: list[Tree] = []


@dataclass
class Line:
    item: str
    price: Decimal = Decimal(1)
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slotted:
    n: int
    tags: frozenset[str] = frozenset()


@dataclass
class Uninitialised:
    n: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.n


@pydantic_dataclasses.dataclass
class Checked:
    n: int
    ids: list[UUID] = field(default_factory=list)


class Point(NamedTuple):
    x: int
    label: str = ""


class Movie(TypedDict):
    name: str
    year: NotRequired[date]


UserId = NewType("UserId", int)
Pair = TypeAliasType("Pair", tuple[int, str])

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
lookalikes = st.sampled_from(["1", "1.5", "true", "2026-01-01T00:00:00", "red", str(UUID(int=5)), "P1D", ""])
whole = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [1.0, -0.0, 1e16, 1e17, 1.5e18, 1e23, 1e300]
)
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Paris")])
datetimes = st.datetimes(timezones=zones)
plains = st.builds(Plain, n=whole, s=texts)
subs = st.builds(Sub, n=whole, s=texts, more=st.integers(0, 3))
lines = st.builds(Line, item=texts, price=st.decimals(allow_nan=False, allow_infinity=False), at=st.none() | datetimes)

Typed = tuple[Any, Any]


def of(hint: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Typed]:
    return values.map(lambda value: (hint, value))


scalars: st.SearchStrategy[Typed] = st.one_of(
    of(int, whole), of(str, texts | lookalikes), of(bool, st.booleans()), of(float, floats), of(None, st.none()),
    of(bytes, texts.map(str.encode) | st.binary(max_size=3)), of(datetime, datetimes), of(date, st.dates()),
    of(time, st.times(timezones=st.sampled_from([None, UTC]))), of(timedelta, st.timedeltas(timedelta(-999), timedelta(999))),
    of(UUID, st.uuids()), of(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    of(Path, texts.map(Path)), of(Colour, st.sampled_from(Colour)), of(Level, st.just(Level.LOW)), of(Word, st.just(Word.YES)),
    of(Right, st.sampled_from([Right.READ, Right.READ | Right.WRITE])), of(Literal[1, "1", "a"], st.sampled_from([1, "1", "a"])),
    of(UserId, whole), of(Annotated[int, Field(gt=0)], st.integers(1, 9)), of(complex, st.complex_numbers(max_magnitude=9)),
    of(SecretStr, texts.map(SecretStr)), of(Any, texts | whole | floats | datetimes | st.uuids()), of(object, st.builds(object)),
)  # fmt: skip
objects: st.SearchStrategy[Typed] = st.one_of(
    of(Plain, plains), of(Plain, subs), of(Aliased, st.builds(lambda n: Aliased(orderId=n, sum=n), whole)),
    of(Swapped, st.builds(lambda n, m: Swapped(b=n, a=m), st.integers(0, 2), st.integers(0, 2))),
    of(Computed, st.builds(Computed, n=st.integers(0, 9))), of(Open, st.builds(Open, n=whole, more=texts | datetimes)),
    of(Secret, texts.map(lambda one: Secret(password=one))), of(Leaky, st.builds(Leaky, n=whole, hidden=st.integers(0, 1))),
    of(Strict, st.builds(Strict, at=datetimes, parts=st.just((1, 2)), word=st.just(Word.YES))),
    of(Annotated[Cat | Dog, Field(discriminator="kind")], st.builds(Cat, lives=whole) | st.builds(Dog, name=texts)),
    of(Plain | Sub, plains | subs), of(Sub | Plain, plains | subs), of(Box[datetime], datetimes.map(lambda at: Box[datetime](inside=at))),
    of(Box[int], texts.map(lambda text: Box[str](inside=text))), of(Tree, whole.map(lambda n: Tree(n=n, children=[Tree(n=1)]))),
    of(RootModel[list[int]], st.lists(whole, max_size=2).map(RootModel[list[int]])),
    of(Line, lines), of(Slotted, st.builds(Slotted, n=whole, tags=st.frozensets(texts, max_size=2))),
    of(Uninitialised, whole.map(lambda n: Uninitialised(n // 4))), of(Checked, st.builds(Checked, n=whole, ids=st.lists(st.uuids(), max_size=2))),
    of(Point, st.builds(Point, st.integers(0, 9), texts)), of(Pair, st.tuples(st.integers(0, 9), texts)),
    of(Movie, st.fixed_dictionaries({"name": texts}, optional={"year": st.dates()})),
)  # fmt: skip


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def holding(pair: Typed) -> st.SearchStrategy[Typed]:
        hint, value = pair
        made: list[Typed] = [
            (list[hint], [value, value]), (dict[str, hint], {"k": value, "": value}), (tuple[hint, ...], (value,)),
            (tuple[hint, int], (value, 1)), (Optional[hint], value), (hint | None if hint is not None else None, None),
            (Union[hint, str], value), (Union[str, hint], "red"), (Union[int, hint], 1), (Union[float, hint], value),
            (Union[datetime, hint], value), (deque[hint], deque([value])), (typing.Sequence[hint], [value]),
            (typing.Sequence[hint], (value,)), (Any, [value]), (dict[str, Any], {"k": value}), (list, [value]),
            (defaultdict[str, list[hint]], defaultdict(list, {"a": [value]})),
            (OrderedDict[str, hint], OrderedDict({"bb": value, "a": value})), (typing.Iterable[hint], [value]),
        ]  # fmt: skip
        try:
            hash(value)
            made += [(set[hint], {value}), (frozenset[hint], frozenset([value])), (dict[hint, int], {value: 1})]
            made += [(Counter[hint], Counter([value, value]))]
        except TypeError:
            pass
        return st.sampled_from(made)

    return inner.flatmap(holding)


TYPED = st.recursive(scalars | objects, containers, max_leaves=3)
