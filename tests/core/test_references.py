"""References to parents' results: found, taken out, put back."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.core.flow import Flow
from flowrun.core.job import JobSpec
from flowrun.core.references import Reference, Unresolved, contains, put_back, references, take_out
from flowrun.errors import InvalidArguments, InvalidFlow

FEW = settings(max_examples=40, deadline=None)


@dataclass(eq=False)
class Place:
    name: str


A, B = Place("a"), Place("b")


def test_a_path_is_written_with_items_and_attributes() -> None:
    reference = Reference(A)["lines"][0].price
    assert references(reference) == [(A, ("lines", 0, "price"))]
    assert repr(reference) == "a.result['lines'][0]['price']"


def test_names_of_dict_methods_are_paths_too() -> None:
    assert references(Reference(A).items.keys) == [(A, ("items", "keys"))]


@pytest.mark.parametrize(
    "use", [list, bool, len, lambda r: r[True], lambda r: r[1.5], lambda r: r[0:1], lambda r: r[None]]
)
def test_what_is_known_only_when_the_flow_runs_cannot_be_used_before(use: Any) -> None:
    with pytest.raises((InvalidFlow, TypeError)):
        use(Reference(A))


def test_private_names_are_no_paths() -> None:
    with pytest.raises(AttributeError):
        _ = Reference(A)._private
    deepcopy([1])
    assert not hasattr(Reference(A), "__length_hint__")


def test_taken_out_at_any_depth() -> None:
    found: list[Any] = []
    value = {"x": Reference(A), "y": [1, (Reference(B)["k"], {"z": Reference(A)[0]})]}
    assert contains(value)
    assert take_out(value, ["arg"], found) == {"x": None, "y": [1, [None, {"z": None}]]}
    assert found == [
        (["arg", "x"], A, ()),
        (["arg", "y", 1, 0], B, ("k",)),
        (["arg", "y", 1, 1, "z"], A, (0,)),
    ]


@pytest.mark.parametrize("value", [None, 5, "text", 1.5, b"x", [], {}, [1, {"a": ("b",)}], object()])
def test_nothing_to_take_out(value: Any) -> None:
    assert not contains(value)
    assert references(value) == []


def test_a_circular_value_does_not_hang() -> None:
    circular: list[Any] = [1]
    circular.append({"again": circular})
    assert not contains(circular)
    circular.append(Reference(A))
    assert contains(circular)
    with pytest.raises(InvalidArguments, match="argument 'x': nested deeper than 200 levels, or circular"):
        take_out(circular, ["x"], [])


def test_a_value_that_stands_in_many_places_is_looked_at_once() -> None:
    value: list[Any] = [Reference(A)]
    for _ in range(200):
        value = [value, value]
    assert contains(value)
    assert len(references(value)) == 1


def test_put_back() -> None:
    arguments = {"receipt": None, "lines": [1, {"x": None}]}
    bindings = [[["receipt"], 0, []], [["lines", 1, "x"], 1, ["items", -1, "id"]]]
    put_back(arguments, bindings, [{"id": 7}, {"items": [{"id": 1}, {"id": 2}]}])
    assert arguments == {"receipt": {"id": 7}, "lines": [1, {"x": 2}]}


@pytest.mark.parametrize("value", [None, "", [], False, 0])
def test_empty_results_are_passed_as_they_are(value: Any) -> None:
    arguments = {"x": "before"}
    put_back(arguments, [[["x"], 0, []]], [value])
    assert arguments["x"] is value


def test_a_parent_without_result_gives_none_whatever_the_path() -> None:
    arguments = {"x": 1}
    put_back(arguments, [[["x"], 0, ["deep", 3, "down"]]], [None])
    assert arguments == {"x": None}


@pytest.mark.parametrize(
    ("result", "path"),
    [({"a": 1}, ["b"]), ([1], [1]), ([1], ["a"]), (5, ["a"]), ({"a": None}, ["a", "b"]), ("text", ["a"])],
)
def test_a_path_that_is_not_there_is_named(result: Any, path: list[Any]) -> None:
    with pytest.raises(Unresolved, match=r"argument 'x': the parent's result has no \["):
        put_back({"x": None}, [[["x"], 0, path]], [result])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(st.dictionaries(st.text(min_size=1, max_size=3), json_values, min_size=1, max_size=4), st.data())
def test_out_and_in_again_gives_the_same(arguments: dict[str, Any], data: st.DataObject) -> None:
    """Replace random parts of a value by references to those parts."""
    parts: list[Any] = []

    def hide(value: Any) -> Any:
        if data.draw(st.integers(0, 3)) == 0:
            parts.append(value)
            return Reference(Place(str(len(parts) - 1)))
        if isinstance(value, dict):
            return {key: hide(item) for key, item in value.items()}
        return [hide(item) for item in value] if isinstance(value, list) else value

    found: list[Any] = []
    plain = {name: take_out(hide(value), [name], found) for name, value in arguments.items()}
    put_back(plain, [(path, int(place.name), into) for path, place, into in found], parts)
    assert plain == arguments


def test_a_nodes_result_is_a_reference() -> None:
    node = Flow("f").add(JobSpec("a"))
    assert references([node.result["id"]]) == [(node, ("id",))]


@pytest.mark.parametrize(
    "use",
    [
        str, int, float, hash, abs, round, complex, bytes, list, bool, sorted, set,
        lambda r: f"{r} cents", lambda r: f"{r.cents:>5}", lambda r: "a" + str(r), lambda r: r + 1,
        lambda r: 1 - r, lambda r: "total: " + r, lambda r: r == 1, lambda r: r != 1, lambda r: r < 1, lambda r: 1 >= r,
        lambda r: 1 in r, lambda r: r in [1, 2], lambda r: {r: 1}, lambda r: -r, lambda r: r % 2, lambda r: r | None,
        lambda r: r.model_dump(), lambda r: ",".join(str(part) for part in [r]), lambda r: range(r), lambda r: [1][r],
    ],
)  # fmt: skip
def test_nothing_is_made_of_what_is_not_known_yet_and_the_way_out_is_said(use: Any) -> None:
    with pytest.raises(InvalidFlow, match=r"a\.result.*known only when the flow runs.*in the handler"):
        use(Reference(A))


def test_it_is_shown_for_whoever_looks_for_a_mistake() -> None:
    assert f"{Reference(A)['cents']!r}" == "a.result['cents']"
