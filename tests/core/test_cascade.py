"""What follows when jobs end."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.core.cascade import Cascade, Counters, Edge, Ended, decide
from flowrun.core.states import Condition, Outcome, satisfies

FEW = settings(max_examples=40, deadline=None)

S, F, ANY = Condition.SUCCEEDED, Condition.FAILED, Condition.FINISHED
GOOD, BAD, SKIPPED = Ended(Outcome.SUCCEEDED), Ended(Outcome.FAILED), Ended(Outcome.SKIPPED)


def test_a_single_edge() -> None:
    edges = [Edge("a", "b", S)]
    assert decide({"a": GOOD}, edges, {"b": Counters(1, 1)}).released == ["b"]
    skipped = decide({"a": BAD}, edges, {"b": Counters(1, 1)}).skipped
    assert skipped["b"].cause == "a"
    assert skipped["b"].condition is S
    assert skipped["b"].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("condition", "end", "runs"),
    [
        (S, GOOD, True), (S, BAD, False), (S, Ended(Outcome.FAILED, optional=True), True), (S, SKIPPED, False),
        (F, GOOD, False), (F, BAD, True), (F, Ended(Outcome.FAILED, optional=True), True), (F, SKIPPED, False),
        (ANY, GOOD, True), (ANY, BAD, True), (ANY, SKIPPED, True), (ANY, Ended(Outcome.CANCELLED), True),
    ],
)  # fmt: skip
def test_each_condition_and_end(condition: Condition, end: Ended, runs: bool) -> None:
    cascade = decide({"a": end}, [Edge("a", "b", condition)], {"b": Counters(1, 1)})
    assert (cascade.released == ["b"]) is runs
    assert ("b" in cascade.skipped) is not runs


def test_all_waits_for_the_last_and_is_skipped_by_the_first_that_fails() -> None:
    edges = [Edge("a", "c", S), Edge("b", "c", S)]
    assert decide({"a": GOOD}, edges, {"c": Counters(2, 2)}).waiting == {"c": Counters(1, 1)}
    assert list(decide({"a": BAD}, edges, {"c": Counters(2, 2)}).skipped) == ["c"]
    assert decide({"a": GOOD, "b": GOOD}, edges, {"c": Counters(2, 2)}) == Cascade(released=["c"])


def test_any_is_released_by_the_first_and_skipped_by_the_last_that_fails() -> None:
    edges = [Edge("a", "c", S), Edge("b", "c", S)]
    assert decide({"a": GOOD}, edges, {"c": Counters(1, 2)}).released == ["c"]
    assert decide({"a": BAD}, edges, {"c": Counters(1, 2)}).waiting == {"c": Counters(1, 1)}
    assert list(decide({"b": BAD}, edges, {"c": Counters(1, 1)}).skipped) == ["c"]


def test_at_least_two_of_three() -> None:
    edges = [Edge(parent, "x", S) for parent in "abc"]
    assert decide({"a": BAD}, edges, {"x": Counters(2, 3)}).waiting == {"x": Counters(2, 2)}
    assert list(decide({"a": BAD, "b": BAD}, edges, {"x": Counters(2, 3)}).skipped) == ["x"]
    assert decide({"a": BAD, "b": GOOD, "c": GOOD}, edges, {"x": Counters(2, 3)}).released == ["x"]


def test_what_was_decided_before_stays_so() -> None:
    assert decide({"b": BAD}, [Edge("b", "c", S)], {}) == Cascade()


def test_a_released_child_is_not_skipped_by_what_comes_later() -> None:
    cascade = decide({"a": GOOD, "b": BAD, "c": BAD}, [Edge(p, "x", S) for p in "abc"], {"x": Counters(1, 3)})
    assert (cascade.released, cascade.skipped, cascade.waiting) == (["x"], {}, {})


def test_two_edges_to_one_parent_both_count() -> None:
    edges = [Edge("a", "b", S), Edge("a", "b", ANY)]
    assert decide({"a": GOOD}, edges, {"b": Counters(2, 2)}).released == ["b"]
    assert list(decide({"a": BAD}, edges, {"b": Counters(2, 2)}).skipped) == ["b"]
    assert decide({"a": BAD}, edges, {"b": Counters(1, 2)}).released == ["b"]


def test_a_skip_goes_on_by_the_same_table() -> None:
    edges = [Edge("a", "b", S), Edge("b", "c", S), Edge("b", "d", F), Edge("b", "e", ANY), Edge("c", "f", ANY)]
    cascade = decide({"a": BAD}, edges, {name: Counters(1, 1) for name in "bcdef"})
    assert set(cascade.skipped) == {"b", "c", "d"}
    assert set(cascade.released) == {"e", "f"}
    assert cascade.skipped["d"] == ("b", F, Outcome.SKIPPED)


def test_ten_thousand_skips_in_a_row() -> None:
    length = 10_000
    edges = [Edge(n, n + 1, S) for n in range(length)]
    cascade = decide({0: BAD}, edges, {n: Counters(1, 1) for n in range(1, length + 1)})
    assert list(cascade.skipped) == list(range(1, length + 1))
    assert cascade.skipped[length].cause == length - 1


def test_ten_thousand_children_of_one() -> None:
    edges = [Edge(0, n, F) for n in range(1, 10_001)] + [Edge(n, -1, ANY) for n in range(1, 10_001)]
    blocked = {n: Counters(1, 1) for n in range(1, 10_001)} | {-1: Counters(10_000, 10_000)}
    assert len(decide({0: GOOD}, edges, blocked).skipped) == 10_000
    assert decide({0: GOOD}, edges, blocked).released == [-1]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Edge[int]], dict[int, Counters], dict[int, Ended], dict[int, int]]:
    """Edges from smaller to greater numbers, the counters of all that have edges, the ends of the others."""
    size = draw(st.integers(2, 9))
    edges = []
    needs: dict[int, int] = {}
    for child in range(1, size):
        pairs = draw(st.sets(st.tuples(st.integers(0, child - 1), st.sampled_from(Condition)), max_size=3))
        edges += [Edge(parent, child, condition) for parent, condition in pairs]
        if pairs:
            needs[child] = draw(st.integers(1, len(pairs)))
    totals = Counter(edge.child for edge in edges)
    blocked = {child: Counters(need, totals[child]) for child, need in needs.items()}
    outcomes = st.builds(Ended, st.sampled_from(Outcome), st.booleans())
    ends = {node: draw(outcomes) for node in range(size) if node not in needs}
    return edges, blocked, ends, needs


@FEW
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_and_ends_does_not_matter(graph, random: Random) -> None:
    edges, blocked, ends, _ = graph
    first = decide(ends, edges, blocked)
    shuffled, order = list(edges), list(ends)
    random.shuffle(shuffled)
    random.shuffle(order)
    again = decide({node: ends[node] for node in order}, shuffled, blocked)
    assert set(again.released) == set(first.released)
    assert again.skipped.keys() == first.skipped.keys()
    assert again.waiting == first.waiting


@FEW
@given(graphs())
def test_every_job_is_decided_once_when_all_its_parents_are(graph) -> None:
    """Run a whole graph to its end: released jobs end too, in waves."""
    edges, blocked, ends, needs = graph
    known = dict(ends)
    fresh, waiting = dict(ends), dict(blocked)
    decided: Counter[int] = Counter()
    while fresh:
        cascade = decide(fresh, edges, waiting)
        decided.update(cascade.released)
        decided.update(list(cascade.skipped))
        waiting.update(cascade.waiting)
        for node in [*cascade.released, *cascade.skipped]:
            del waiting[node]
        for node, skip in cascade.skipped.items():
            known[node] = SKIPPED
            # The cause is a parent that ended, by an edge that it does not satisfy.
            assert Edge(skip.cause, node, skip.condition) in edges
            assert not satisfies(known[skip.cause].outcome, skip.condition, optional=known[skip.cause].optional)
        fresh = {node: GOOD if node % 2 else Ended(Outcome.FAILED, node % 3 == 0) for node in cascade.released}
        known.update(fresh)
    assert waiting == {}
    assert decided == Counter(blocked.keys())
    for node, need in needs.items():
        satisfied = sum(
            satisfies(known[edge.parent].outcome, edge.condition, optional=known[edge.parent].optional)
            for edge in edges
            if edge.child == node
        )
        assert (known[node].outcome is not Outcome.SKIPPED) == (satisfied >= need)


@FEW
@given(graphs())
def test_all_at_once_or_one_by_one_comes_to_the_same(graph) -> None:
    edges, blocked, ends, _ = graph
    at_once = decide(ends, edges, blocked)
    waiting = dict(blocked)
    released: set[int] = set()
    skipped: set[int] = set()
    for node, end in ends.items():
        cascade = decide({node: end}, edges, waiting)
        released.update(cascade.released)
        skipped.update(cascade.skipped)
        waiting.update(cascade.waiting)
        for gone in [*cascade.released, *cascade.skipped]:
            del waiting[gone]
    assert released == set(at_once.released)
    assert skipped == set(at_once.skipped)
    assert waiting == {node: at_once.waiting.get(node, blocked[node]) for node in waiting}


def test_a_parent_whose_result_is_not_as_asked_disappoints() -> None:
    edges = [Edge("a", "b", S, passed=False), Edge("a", "c", S, passed=True)]
    cascade = decide({"a": GOOD}, edges, {"b": Counters(1, 1), "c": Counters(1, 1)})
    assert cascade.released == ["c"]
    assert list(cascade.skipped) == ["b"]


def test_a_cleanup_runs_after_what_was_cancelled() -> None:
    edge = Edge("a", "b", Condition.SUCCEEDED_OR_CANCELLED)
    for outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED):
        assert decide({"a": Ended(outcome)}, [edge], {"b": Counters(1, 1)}).released == ["b"]
    for outcome in (Outcome.FAILED, Outcome.SKIPPED):
        assert list(decide({"a": Ended(outcome)}, [edge], {"b": Counters(1, 1)}).skipped) == ["b"]


def test_the_losers_of_a_race_are_named_once_it_is_decided() -> None:
    edges = [Edge("a", "x", S, rivals=("b", "c")), Edge("b", "x", S, rivals=("a", "c"))]
    assert not decide({"a": BAD}, edges, {"x": Counters(1, 3)}).losers
    assert list(decide({"a": GOOD}, edges, {"x": Counters(1, 3)}).losers) == ["b", "c"]
    assert not decide({"a": GOOD}, edges, {}).losers
