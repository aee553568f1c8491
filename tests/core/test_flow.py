"""Writing flows: names, conditions, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from flowrun import ConfigurationError, InvalidFlow, any_of, at_least
from flowrun.core.flow import Flow, Join, When
from flowrun.core.job import JobSpec
from flowrun.core.states import Condition

A, B, C = JobSpec("a"), JobSpec("b"), JobSpec("c")


def names(flow: Flow) -> list[str]:
    return [node.name for node in flow.nodes]


def test_names_default_to_the_type_and_count_on() -> None:
    flow = Flow("f")
    flow.group(A, A, B, A)
    assert names(flow) == ["a", "a-2", "b", "a-3"]


def test_counting_steps_over_names_that_are_taken() -> None:
    flow = Flow("f")
    flow.add(B, name="a-2")
    flow.group(A, A, A)
    assert names(flow) == ["a-2", "a", "a-3", "a-4"]


def test_a_name_given_later_does_not_rename() -> None:
    flow = Flow("f")
    flow.group(A, A)
    flow.add(A, name="other")
    assert names(flow) == ["a", "a-2", "other"]


def test_callbacks_take_names_too() -> None:
    flow = Flow("f")
    flow.add(A)
    assert flow.on_failure(A).name == "a-2"
    assert flow.on_finish(A, name="last").name == "last"


@pytest.mark.parametrize("name", ["", "a\n", "x" * 201, 5])
def test_refused_names(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="a node's name"):
        Flow("f").add(A, name=name)
    with pytest.raises(ConfigurationError, match="a flow's name"):
        Flow(name)


def test_conditions() -> None:
    flow = Flow("f")
    a, b = flow.group(A, B)
    node = flow.add(C, after=[a, b.failed, "later", a.finished])
    assert node.after == (
        a,
        When(b, Condition.FAILED),
        When("later", Condition.SUCCEEDED),
        When(a, Condition.FINISHED),
    )
    assert a.succeeded == When(a, Condition.SUCCEEDED)
    assert flow.add(C, after=a).after == flow.add(C, after=[a]).after
    assert flow.add(C, after=(a, b)).after == flow.add(C).also_after(a, b).after


def test_joins() -> None:
    flow = Flow("f")
    a, b = flow.group(A, B)
    assert any_of(a, b.failed) == Join(1, (When(a, Condition.SUCCEEDED), When(b, Condition.FAILED)))
    assert at_least(2, a, "x") == Join(2, (When(a, Condition.SUCCEEDED), When("x", Condition.SUCCEEDED)))


@pytest.mark.parametrize("count", [0, -1, 3, True, 1.0, "1"])
def test_a_join_that_always_or_never_holds(count: Any) -> None:
    with pytest.raises(InvalidFlow, match="the count must be between 1 and their number"):
        at_least(count, "a", "b")


def test_empty_joins_doubles_and_joins_in_joins() -> None:
    with pytest.raises(InvalidFlow, match="count must be between"):
        any_of()
    with pytest.raises(InvalidFlow, match="the same condition twice"):
        at_least(2, "a", "a")
    with pytest.raises(InvalidFlow, match="inside another"):
        any_of("a", any_of("b", "c"))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, object(), A, {"a"}, lambda: None])
def test_after_takes_nodes(wrong: Any) -> None:
    with pytest.raises(InvalidFlow, match="after= takes nodes, conditions"):
        Flow("f").add(A, after=wrong)


def test_add_takes_jobs_and_flows() -> None:
    def charge() -> None: ...

    with pytest.raises(InvalidFlow, match="did you mean handler.job"):
        Flow("f").add(charge)  # type: ignore[call-overload]
    with pytest.raises(InvalidFlow, match="takes handler.job.* not dict"):
        Flow("f").add({})  # type: ignore[call-overload]


def test_chains_and_groups_take_lists_too() -> None:
    for specs in ([A, B, C], [[A, B, C]], [A, (B, C)]):
        flow = Flow("f")
        first = flow.add(JobSpec("first"))
        chain = flow.chain(*specs, after=first)
        assert [node.after[0] for node in chain] == [first, *chain[:-1]]
        group = flow.group(*specs, after=first.failed)
        assert all(node.after == (first.failed,) for node in group)


def test_then_and_add_child() -> None:
    flow = Flow("f")
    root = flow.add(A)
    assert root.then(B).after == root.add_child(B).after == flow.add_child(root, B).after == (root,)
    assert flow.add_child("a", B, name="by name").after == (When("a", Condition.SUCCEEDED),)


def test_a_flow_is_a_node_of_one_flow_and_never_of_itself() -> None:
    outer, inner, deep = Flow("outer"), Flow("inner"), Flow("deep")
    node = outer.add(inner)
    assert (node.name, node.inner, inner.parent) == ("inner", inner, outer)
    with pytest.raises(InvalidFlow, match="'inner' is already a node of flow 'outer'"):
        Flow("other").add(inner)
    inner.add(deep)
    with pytest.raises(InvalidFlow, match="'outer' cannot be a node of itself"):
        deep.add(outer)
    with pytest.raises(InvalidFlow, match="cannot be a node of itself"):
        outer.add(outer)


def test_defaults_and_tags() -> None:
    flow = Flow("f", queue="q", tags=["x"])
    assert flow.defaults == {"queue": "q"}
    assert flow.tags == ["x"]
    with pytest.raises(ConfigurationError, match="flow 'f': attempts= must be"):
        Flow("f", attempts=0)


def test_what_they_look_like() -> None:
    flow = Flow("f")
    assert repr(flow.add(A)) == "<Node 'a' of flow 'f'>"
    assert repr(flow) == "<Flow 'f' of 1 node(s)>"
