"""Nodes that are added to a stored flow."""

from __future__ import annotations

import json
from itertools import count
from uuid import UUID

import pytest

from flowrun import InvalidFlow, any_of
from flowrun.core.flow import Flow
from flowrun.core.growth import Growth, compile_growth
from flowrun.core.job import JobSpec
from flowrun.core.states import Kind
from tests.core.test_compile import encode

STORED, SPAWNER = UUID(int=1000), UUID(int=1001)


def grown(
    fragment: Flow, *detached: object, spawned: bool = True
) -> tuple[Growth, dict[str, UUID], set[tuple[str, str, int]]]:
    """The growth, the new nodes by name, and edges by name."""
    numbers = count(1)

    def mint(size: int) -> tuple[UUID, list[UUID]]:
        return UUID(int=next(numbers)), [UUID(int=next(numbers)) for _ in range(size)]

    spawner = (SPAWNER, "me") if spawned else None
    growth = compile_growth(
        fragment,
        STORED,
        encode,
        json.dumps,
        mint,
        prefix="in/",
        spawner=spawner,
        detached=detached,  # type: ignore[arg-type]
    )
    names = {row.id: row.name for row in growth.plan.jobs} | growth.outside
    edges = {(str(names[parent]), str(names[child]), condition) for parent, child, condition in growth.plan.edges}
    return growth, {str(row.name): row.id for row in growth.plan.jobs}, edges


def test_what_is_spawned_comes_after_its_spawner_and_before_its_children() -> None:
    fragment = Flow("me")
    a = fragment.add(JobSpec("a"))
    fragment.add(JobSpec("b"), after=a)
    growth, new, edges = grown(fragment)
    assert edges == {
        ("in/me", "in/a", 0),
        ("in/a", "in/b", 0),
        ("in/a", "(spawned: finished)", 2),
        ("in/b", "(spawned: finished)", 2),
        ("in/a", "(spawned: succeeded)", 0),
        ("in/b", "(spawned: succeeded)", 0),
    }
    assert growth.joins == {2: new["(spawned: finished)"], 0: new["(spawned: succeeded)"]}
    assert {row.flow_id for row in growth.plan.jobs} == {STORED}
    assert not growth.plan.free
    assert not growth.plan.flows
    assert sorted(need for _, need, _ in growth.plan.blocked) == [1, 1, 2, 2]
    assert growth.unnamed == {new["in/a"], new["in/b"]}


def test_stored_nodes_are_named_and_never_written() -> None:
    fragment = Flow("me")
    fragment.add(JobSpec("a"), after=["pay", any_of("x", "y")], name="a")
    growth, _, edges = grown(fragment)
    assert set(growth.outside.values()) == {"in/me", "in/pay", "in/x", "in/y"}
    assert ("in/pay", "in/a", 0) in edges
    assert {("in/x", "in/a/(1 of 2)", 0), ("in/y", "in/a/(1 of 2)", 0)} <= {
        (parent, child.replace("a/(1", "in/a/(1") if not child.startswith("in/") else child, c)
        for parent, child, c in edges
    }
    assert not {row.id for row in growth.plan.jobs} & growth.outside.keys()


def test_a_new_name_goes_before_a_stored_one() -> None:
    fragment = Flow("me")
    fragment.add(JobSpec("a"), name="pay")
    fragment.add(JobSpec("b"), after="pay")
    growth, _, _ = grown(fragment)
    assert set(growth.outside.values()) == {"in/me"}


def test_detached_nodes_are_tied_to_nothing() -> None:
    fragment = Flow("me")
    free = fragment.add(JobSpec("free"))
    growth, new, edges = grown(fragment, free)
    assert edges == {("in/me", "in/free", 0)}
    assert (growth.joins, growth.loose) == ({}, [new["in/free"]])


def test_nodes_from_outside_are_loose() -> None:
    fragment = Flow("addition")
    fragment.add(JobSpec("a"))
    fragment.add(JobSpec("b"), after="pay")
    growth, new, edges = grown(fragment, spawned=False)
    assert edges == {("in/pay", "in/b", 0)}
    assert set(growth.loose) == {new["in/a"], new["in/b"]}
    assert [row.name for row in growth.plan.free] == ["in/a"]


def test_an_inner_flow_that_is_spawned_keeps_its_end() -> None:
    inner = Flow("inner")
    inner.add(JobSpec("x"))
    fragment = Flow("me")
    fragment.add(inner)
    growth, new, edges = grown(fragment)
    assert [flow.id for flow in growth.plan.flows] == [new["in/inner"]]
    assert ("in/inner/x", "in/inner", 2) in edges
    assert next(row for row in growth.plan.jobs if row.name == "in/inner").kind is Kind.END


def test_a_cycle_among_new_nodes_is_refused() -> None:
    fragment = Flow("me")
    fragment.add(JobSpec("a"), after="b", name="a")
    fragment.add(JobSpec("b"), after="a", name="b")
    with pytest.raises(InvalidFlow, match="cycle"):
        grown(fragment)
