"""Running a part of a flow again."""

from __future__ import annotations

import sys

from flowrun.core.again import Again, Stored, again, failed, undo
from flowrun.core.cascade import Counters, Edge
from flowrun.core.states import Condition, Kind, Outcome

S, F, ANY = Condition.SUCCEEDED, Condition.FAILED, Condition.FINISHED
GOOD, BAD, OFF, SKIPPED = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED


def job(outcome: Outcome | None = None, kind: Kind = Kind.HANDLER, **more: object) -> Stored[str]:
    known = {"optional": False, "spoils": outcome in (BAD, OFF), "need": None, "waiting": None} | more
    return Stored(kind, "f", outcome, **known)  # type: ignore[arg-type]


def run(jobs: dict[str, Stored[str]], edges: list[Edge[str]], *first: str, held: tuple[str, ...] = ()) -> Again[str]:
    return again(jobs, edges, undo(jobs, edges, first or failed(jobs, "f")), held)


def test_what_failed_and_what_it_skipped() -> None:
    jobs = {"a": job(GOOD), "b": job(BAD), "c": job(SKIPPED), "d": job(GOOD), "e": job(BAD, Kind.END)}
    edges = [Edge("a", "b", S), Edge("b", "c", S), Edge("b", "d", F)]
    edges += [Edge(one, "e", ANY) for one in "bcd"]
    plan = run(jobs, edges)
    assert plan.undone == {"b", "c", "e"}
    assert plan.released == ["b"]
    assert plan.blocked == {"c": Counters(1, 1), "e": Counters(2, 2)}
    assert not plan.skipped


def test_optional_failures_and_losers_of_races_stay() -> None:
    jobs = {"a": job(BAD, spoils=False), "b": job(OFF, spoils=False), "c": job(OFF)}
    assert failed(jobs, "f") == {"c"}


def test_a_skip_for_another_reason_is_decided_again_at_once() -> None:
    jobs = {"a": job(BAD), "b": job(GOOD), "c": job(SKIPPED), "d": job(SKIPPED)}
    edges = [Edge("a", "c", S), Edge("b", "c", F), Edge("c", "d", S)]
    plan = run(jobs, edges)
    assert plan.released == ["a"]
    assert set(plan.skipped) == {"c"}  # d was skipped because of c, and is so still
    assert plan.skipped["c"].cause == "b"
    assert not plan.blocked


def test_of_a_join_the_parents_that_are_kept_count() -> None:
    jobs = {"a": job(GOOD), "b": job(BAD), "c": job(BAD), "j": job(SKIPPED, need=2)}
    edges = [Edge(one, "j", S) for one in "abc"]
    plan = run(jobs, edges)
    assert plan.blocked == {"j": Counters(1, 2)}
    assert sorted(plan.released) == ["b", "c"]


def test_what_waits_still_takes_back_what_it_counted() -> None:
    jobs = {
        "a": job(BAD),
        "b": job(None),
        "c": job(None, waiting=Counters(1, 1), need=1),
        "e": job(None, waiting=Counters(1, 1)),
    }
    edges = [Edge("a", "c", S), Edge("b", "c", S), Edge("a", "e", ANY), Edge("b", "e", ANY)]
    plan = run(jobs, edges, "a")
    assert plan.blocked == {"c": Counters(1, 2), "e": Counters(2, 2)}


def test_an_end_that_is_about_to_decide_is_recalled() -> None:
    jobs = {"a": job(BAD), "e": job(None, Kind.END), "x": job(None)}
    edges = [Edge("a", "e", ANY), Edge("a", "x", ANY)]
    plan = run(jobs, edges)
    assert plan.undone == {"a", "e"}
    assert plan.blocked == {"e": Counters(1, 1)}


def test_a_map_runs_its_failed_and_its_cancelled_items_again() -> None:
    jobs = {"i": job(BAD), "k": job(OFF, spoils=False), "l": job(GOOD), "m": job(BAD, Kind.MAP)}
    edges = [Edge(one, "m", ANY) for one in "ikl"]
    plan = run(jobs, edges)
    assert plan.undone == {"i", "k", "m"}
    assert plan.blocked == {"m": Counters(2, 2)}


def test_what_is_decided_by_hand_is_not_released() -> None:
    jobs = {"a": job(BAD), "b": job(SKIPPED)}
    plan = run(jobs, [Edge("a", "b", S)], "a", held=("a",))
    assert plan.undone == {"a", "b"}
    assert plan.released == []
    assert plan.blocked == {"b": Counters(1, 1)}


def test_conditions_on_results_and_on_cancelled_parents() -> None:
    jobs = {"a": job(GOOD), "b": job(OFF), "c": job(SKIPPED), "x": job(BAD)}
    edges = [
        Edge("a", "c", S, passed=False),
        Edge("x", "c", S),
        Edge("b", "d", Condition.SUCCEEDED_OR_CANCELLED),
        Edge("x", "d", S),
    ]
    jobs["d"] = job(SKIPPED)
    plan = run(jobs, edges, "x")
    assert set(plan.skipped) == {"c"}
    assert plan.blocked == {"d": Counters(1, 1)}


def inner_flow(end: Outcome, start: Outcome, *nodes: Outcome) -> tuple[dict[str, Stored[str]], list[Edge[str]]]:
    """A failed job, and a flow inside that waits for its end; the flow has these nodes, one after the other."""
    jobs = {"x": job(BAD), "start": job(start, Kind.JOIN, spoils=False), "end": job(end, Kind.END)}
    edges = [Edge("x", "start", ANY), Edge("start", "end", Condition.SUCCEEDED_OR_CANCELLED)]
    before = "start"
    for number, outcome in enumerate(nodes):
        jobs[f"n{number}"] = job(outcome)._replace(flow_id="end")
        edges += [Edge(before, f"n{number}", S), Edge(f"n{number}", "end", ANY)]
        before = f"n{number}"
    return jobs, edges


def test_a_flow_inside_that_has_ended_is_not_asked_again_because_it_would_begin_again() -> None:
    for end, node in [(GOOD, GOOD), (OFF, OFF)]:
        jobs, edges = inner_flow(end, GOOD, node)
        plan = run(jobs, edges, "x")
        assert plan.undone == {"x", "start"}
        assert plan.blocked == {"start": Counters(1, 1)}


def test_a_skip_inside_a_flow_that_succeeded_does_not_open_it() -> None:
    jobs, edges = inner_flow(GOOD, GOOD, GOOD)
    jobs["s"] = job(SKIPPED)._replace(flow_id="end")
    edges += [Edge("start", "s", S), Edge("n0", "s", F), Edge("s", "end", ANY)]
    plan = run(jobs, edges, "x")
    assert plan.undone == {"x", "start", "s"}
    assert set(plan.skipped) == {"s"}


def test_a_flow_inside_that_was_cancelled_before_it_began_begins() -> None:
    for nodes in [(), (OFF,), (OFF, OFF)]:
        jobs, edges = inner_flow(OFF, OFF, *nodes)
        plan = run(jobs, edges)
        assert plan.undone == jobs.keys()
        assert plan.released == ["x"]
        assert plan.blocked["start"] == Counters(1, 1)


def test_a_child_of_very_many_parents_is_counted_once() -> None:
    def calls(width: int) -> int:
        jobs = {f"p{n}": job(BAD if n % 2 else GOOD) for n in range(width)}
        jobs |= {"c": job(SKIPPED), "d": job(SKIPPED), "lost": job(SKIPPED), "e": job(BAD, Kind.END)}
        edges = [Edge(f"p{n}", child, S) for n in range(width) for child in ("c", "lost")]
        edges += [Edge("p0", "lost", F), Edge("c", "d", S), *(Edge(one, "e", ANY) for one in jobs if one != "e")]
        count = 0

        def counted(_: object, event: str, __: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            plan = run(jobs, edges)
        finally:
            sys.setprofile(None)
        assert plan.undone == jobs.keys() - {f"p{n}" for n in range(0, width, 2)}
        assert set(plan.skipped) == {"lost"}
        return count

    assert calls(800) < 5 * calls(200)
