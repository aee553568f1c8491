"""From a flow as written to its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from flowrun import InvalidFlow, any_of, at_least, race
from flowrun.core.compile import compile_flow, compile_job, compile_jobs
from flowrun.core.flow import Flow
from flowrun.core.job import JobSpec
from flowrun.core.layout import MAX_DEPTH
from flowrun.core.plan import JobRow, Plan
from flowrun.core.references import take_out
from flowrun.core.states import Kind
from flowrun.core.vertex import Encode, Encoded

FLOW = UUID(int=0)
KINDS = {0: "job", 1: "end", 2: "join"}
WORDS = {0: "succeeded", 1: "failed", 2: "finished", 3: "succeeded itself", 4: "succeeded or cancelled"}


def encode(spec: JobSpec[Any], _where: str) -> Encoded:
    found: list[Any] = []
    args = take_out(dict(spec.kwargs), [], found)
    sources = list(dict.fromkeys(node for _, node, _ in found))
    return Encoded(json.dumps(args), sources, [(path, sources.index(node), list(into)) for path, node, into in found])


def encode_for_takers(spec: JobSpec[Any], where: str) -> Encoded:
    """Handlers of type ``taker`` take the running job."""
    return encode(spec, where)._replace(takes_job=spec.type == "taker")


def mint(size: int) -> tuple[UUID, Iterator[UUID]]:
    return FLOW, map(UUID, (f"{number:032x}" for number in range(1, size + 1)))


@dataclass
class Rows:
    plan: Plan
    by_name: dict[str, JobRow]

    def parents(self, name: str) -> set[str]:
        """``parent condition`` of each edge."""
        child = self.by_name[name].id
        return {f"{self.name(parent)} {WORDS[condition]}" for parent, to, condition in self.plan.edges if to == child}

    def name(self, id: UUID) -> str:
        return next(name for name, row in self.by_name.items() if row.id == id)

    def counters(self, name: str) -> tuple[int, int]:
        return next((need, open) for id, need, open in self.plan.blocked if id == self.by_name[name].id)


def compiled(flow: Flow, encode: Encode = encode) -> Rows:
    plan = compile_flow(flow, encode, json.dumps, mint).plan
    rows = {row.name if row.flow_id is not None else "END": row for row in plan.jobs}
    assert len(rows) == len(plan.jobs)
    return Rows(plan, rows)  # type: ignore[arg-type]


def job(type: str, **kwargs: Any) -> JobSpec[Any]:
    return JobSpec(type, (), kwargs)


A, B, C, D = job("a"), job("b"), job("c"), job("d")


# -- rows ----------------------------------------------------------------------------------------------------------------


def test_a_chain() -> None:
    flow = Flow("f")
    flow.chain(A, B, C)
    rows = compiled(flow)
    assert [row.name for row in rows.plan.jobs] == ["a", "b", "c", "f"]
    assert [row.name for row in rows.plan.free] == ["a"]
    assert rows.parents("b") == {"a succeeded"}
    assert rows.parents("END") == {"c finished"}
    assert rows.by_name["END"].id == FLOW
    assert rows.by_name["END"].flow_id is None
    assert {row.flow_id for name, row in rows.by_name.items() if name != "END"} == {FLOW}


def test_ids_grow_from_parents_to_children_however_it_is_written() -> None:
    flow = Flow("f")
    flow.add(C, after=["b", "a"])
    flow.add(B, after=any_of("a", "d"))
    flow.add(A, after="d")
    flow.add(D)
    plan = compile_flow(flow, encode, json.dumps, mint).plan
    assert all(parent < child or child == FLOW for parent, child, _ in plan.edges)
    assert [row.id for row in plan.jobs if row.id != FLOW] == sorted(row.id for row in plan.jobs if row.id != FLOW)


def test_an_empty_flow_is_just_its_end() -> None:
    plan = compile_flow(Flow("f"), encode, json.dumps, mint).plan
    assert [row.name for row in plan.free] == ["f"]
    assert (plan.edges, plan.blocked) == ([], [])


def test_equal_edges_are_one() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(job("b", x=a.result, y=[a.result["id"]]), after=[a, "a", a.succeeded, a])
    rows = compiled(flow)
    assert rows.counters("b") == (1, 1)
    assert len([child for _, child, _ in rows.plan.edges if child == rows.by_name["b"].id]) == 1


def test_different_conditions_on_one_parent_are_two_edges() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(B, after=[a, a.finished])
    rows = compiled(flow)
    assert rows.parents("b") == {"a succeeded", "a finished"}
    assert rows.counters("b") == (2, 2)


def test_a_join_alone_is_a_pair_of_counters() -> None:
    flow = Flow("f")
    a, b, c = flow.group(A, B, C)
    flow.add(D, after=at_least(2, a, b.failed, c.finished))
    rows = compiled(flow)
    assert rows.counters("d") == (2, 3)
    assert rows.parents("d") == {"a succeeded", "b failed", "c finished"}
    assert not [row for row in rows.plan.jobs if row.kind == 2]


def test_a_join_beside_a_plain_condition_is_a_job_of_its_own() -> None:
    flow = Flow("f")
    a, b, c = flow.group(A, B, C)
    flow.add(D, after=[a, any_of(b, c)])
    rows = compiled(flow)
    assert rows.parents("d") == {"a succeeded", "d/(1 of 2) succeeded"}
    assert rows.parents("d/(1 of 2)") == {"b succeeded", "c succeeded"}
    assert rows.counters("d") == (2, 2)
    assert rows.counters("d/(1 of 2)") == (1, 2)
    assert KINDS[rows.by_name["d/(1 of 2)"].kind] == "join"


def test_two_joins() -> None:
    flow = Flow("f")
    a, b, c = flow.group(A, B, C)
    flow.add(D, after=[any_of(a, b), at_least(2, a, b, c)])
    rows = compiled(flow)
    assert rows.parents("d") == {"d/(1 of 2) succeeded", "d/(2 of 3) succeeded"}


def test_a_reference_draws_its_edge_unless_the_parent_is_waited_for_already() -> None:
    flow = Flow("f")
    a, b = flow.group(A, B)
    flow.add(job("c", x=a.result, y=b.result), after=b.failed)
    flow.add(job("d", x=a.result, y=b.result), after=any_of(a, b))
    rows = compiled(flow)
    assert rows.parents("c") == {"a succeeded", "b failed"}
    assert rows.parents("d") == {"a succeeded", "b succeeded"}
    assert rows.counters("d") == (1, 2)
    assert rows.by_name["c"].sources == [rows.by_name["a"].id, rows.by_name["b"].id]
    assert json.loads(rows.by_name["c"].bindings or "") == [[["x"], 0, []], [["y"], 1, []]]
    assert json.loads(rows.by_name["c"].args) == {"x": None, "y": None}


# -- the end of a flow ---------------------------------------------------------------------------------------------------


def test_the_end_waits_for_the_last_nodes() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.group(B, C, after=a)
    assert compiled(flow).parents("END") == {"b finished", "c finished"}


def test_the_end_waits_for_what_may_still_run_when_its_child_is_skipped() -> None:
    """If a fails, c is skipped at once and b may be running."""
    flow = Flow("f")
    flow.add(C, after=flow.group(A, B))
    assert compiled(flow).parents("END") == {"a finished", "b finished", "c finished"}


def test_the_end_waits_for_what_may_still_run_when_a_join_is_released() -> None:
    flow = Flow("f")
    flow.add(C, after=any_of(*flow.group(A, B)))
    assert compiled(flow).parents("END") == {"a finished", "b finished", "c finished"}


def test_the_end_does_not_wait_twice_for_what_has_ended_before_a_child_can_be_decided() -> None:
    flow = Flow("f")
    a, b = flow.group(A, B)
    flow.add(C, after=[a.finished, b.finished])
    assert compiled(flow).parents("END") == {"c finished"}
    other = Flow("f")
    a, b = other.group(A, B)
    other.add(C, after=[a, b.finished])
    # b cannot disappoint c, so c is decided after a; but a can, and then b may be running
    assert compiled(other).parents("END") == {"b finished", "c finished"}


def test_what_the_result_is_made_of() -> None:
    single = Flow("f")
    single.chain(A, B)
    assert compiled(single).by_name["END"].sources is not None
    several = Flow("f")
    several.group(A, B)
    assert compiled(several).by_name["END"].sources is None
    named = Flow("f", output="a")
    named.chain(A, B)
    rows = compiled(named)
    assert rows.by_name["END"].sources == [rows.by_name["a"].id]


@pytest.mark.parametrize("output", ["nobody", Flow("other").add(A)])
def test_output_names_a_node_of_the_flow(output: Any) -> None:
    flow = Flow("f", output=output)
    flow.add(B)
    with pytest.raises(InvalidFlow, match="output= names '(nobody|a)', which is not one of its nodes"):
        compiled(flow)


def test_callbacks_wait_for_the_end_and_the_end_not_for_them() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.on_success(B)
    flow.on_failure(C)
    flow.on_finish(job("d", x=a.result))
    rows = compiled(flow)
    assert rows.parents("b") == {"END succeeded itself"}
    assert rows.parents("c") == {"END failed"}
    assert rows.parents("d") == {"END finished", "a succeeded"}
    assert rows.parents("END") == {"a finished"}


def test_a_callback_with_more_to_wait_for_waits_for_the_end_all_the_same() -> None:
    flow = Flow("f")
    a, b = flow.group(A, B)
    flow.on_finish(C).also_after(any_of(a.failed, b.failed))
    rows = compiled(flow)
    assert rows.parents("c") == {"END finished", "c/(1 of 2) succeeded"}
    assert rows.counters("c") == (2, 2)


# -- flows in flows ------------------------------------------------------------------------------------------------------


def nested() -> Flow:
    flow, inner = Flow("f"), Flow("inner")
    inner.chain(B, C)
    a = flow.add(A)
    node = flow.add(inner, after=a)
    flow.add(job("d", x=node.result), after=node)
    return flow


def test_a_flow_as_a_node() -> None:
    rows = compiled(nested())
    assert list(rows.by_name) == ["a", "inner/(start)", "inner/b", "inner/c", "inner", "d", "END"]
    assert rows.parents("inner/(start)") == {"a succeeded"}
    assert rows.parents("inner/b") == {"inner/(start) succeeded"}
    assert rows.parents("inner/c") == {"inner/b succeeded"}
    assert rows.parents("inner") == {"inner/c finished", "inner/(start) succeeded or cancelled"}
    assert rows.parents("d") == {"inner succeeded"}
    assert [(row.name, row.root_id) for row in rows.plan.flows] == [("inner", FLOW), ("f", FLOW)]
    inner = rows.by_name["inner"]
    assert rows.plan.flows[0].id == inner.id
    assert inner.flow_id == FLOW
    assert rows.by_name["inner/b"].flow_id == inner.id


def test_a_flow_that_waits_for_nothing_needs_no_start() -> None:
    flow, inner = Flow("f"), Flow("inner")
    flow.add(inner)
    inner.add(A)
    rows = compiled(flow)
    assert list(rows.by_name) == ["inner/a", "inner", "END"]
    assert [row.name for row in rows.plan.free] == ["inner/a"]


def test_what_a_skipped_parent_would_release_waits_for_the_start_of_its_flow_too() -> None:
    flow, inner, deep = Flow("f"), Flow("inner"), Flow("deep")
    flow.add(inner, after=flow.add(A))
    b = inner.add(B)
    inner.add(C, after=b.finished)
    inner.add(D, after=any_of(b.finished, "c"))
    inner.add(deep, after=b.finished)
    inner.add(job("e"), after=[b, b.failed])
    deep.add(A)
    rows = compiled(flow)
    assert rows.parents("inner/c") == {"inner/b finished", "inner/(start) succeeded"}
    assert rows.parents("inner/d") == {"inner/d/(1 of 2) succeeded", "inner/(start) succeeded"}
    assert rows.parents("inner/deep/(start)") == {"inner/b finished", "inner/(start) succeeded"}
    assert rows.parents("inner/e") == {"inner/b succeeded", "inner/b failed"}


def test_references_reach_out_of_a_flow_and_never_into_one() -> None:
    flow, inner = Flow("f"), Flow("inner")
    a = flow.add(A)
    b = inner.add(job("b", x=a.result))
    flow.add(inner)
    rows = compiled(flow)
    assert rows.parents("inner/b") == {"a succeeded"}
    assert rows.parents("END") == {"inner finished"}
    flow.add(job("c", x=b.result))
    with pytest.raises(InvalidFlow, match="node 'c' of flow 'f' uses the result of node 'b' of flow 'inner'"):
        compiled(flow)


def test_nested_as_deep_as_allowed_and_one_deeper() -> None:
    def deep(levels: int) -> Flow:
        flow = root = Flow("f")
        for _ in range(levels):
            inner = Flow("f")
            flow.add(inner)
            flow = inner
        flow.add(A)
        return root

    assert len(compile_flow(deep(MAX_DEPTH), encode, json.dumps, mint).plan.flows) == MAX_DEPTH + 1
    with pytest.raises(InvalidFlow, match=f"nested deeper than {MAX_DEPTH}"):
        compile_flow(deep(1000), encode, json.dumps, mint)


def test_an_inner_flow_cannot_be_dispatched_by_itself() -> None:
    flow = nested()
    inner = flow.nodes[1].inner
    assert inner
    with pytest.raises(InvalidFlow, match="flow 'inner' is a node of flow 'f'; dispatch that one"):
        compiled(inner)


def test_options_of_flow_job_and_handler() -> None:
    flow, inner = Flow("f", queue="outer", priority=1), Flow("inner", queue="inner")
    spec = JobSpec("a", defaults={"queue": "handler", "attempts": 9, "optional": True})
    flow.add(spec)
    flow.add(spec.options(priority=8), name="own")
    flow.add(spec, name="must", optional=False)
    flow.add(inner)
    inner.add(spec)
    rows = compiled(flow).by_name
    assert (rows["a"].queue, rows["a"].priority, rows["a"].optional) == ("outer", 1, True)
    assert (rows["own"].queue, rows["own"].priority) == ("outer", 8)
    assert rows["must"].optional is False
    assert (rows["inner/a"].queue, rows["inner/a"].priority) == ("inner", 1)
    assert rows["a"].options is None  # what the handler says is not stored: the worker knows it


# -- what is refused -----------------------------------------------------------------------------------------------------


def test_a_cycle_is_named() -> None:
    flow = Flow("f")
    flow.add(A, after="b")
    flow.add(B, after="a")
    with pytest.raises(InvalidFlow, match=r"^cycle: (a -> b -> a|b -> a -> b)$"):
        compiled(flow)


def test_a_longer_cycle_is_named_in_the_direction_of_its_edges() -> None:
    flow = Flow("f")
    flow.add(A, after="c")
    flow.add(B, after="a")
    flow.add(C, after="b")
    flow.add(D, after="c")
    with pytest.raises(InvalidFlow, match="cycle: ") as error:
        compiled(flow)
    assert "a -> b -> c -> a" in f"{str(error.value)[7:]} -> {str(error.value)[7:].split(' -> ', 1)[1]}"


def test_a_node_after_itself() -> None:
    flow = Flow("f")
    flow.add(A, after="a")
    with pytest.raises(InvalidFlow, match="cycle: a -> a$"):
        compiled(flow)


def test_a_cycle_through_a_join_an_inner_flow_and_a_reference() -> None:
    flow, inner = Flow("f"), Flow("inner")
    a = flow.add(A, after=["d", any_of("inner", "d")])
    flow.add(D)
    flow.add(inner)
    inner.add(job("b", x=a.result))
    with pytest.raises(InvalidFlow, match=r"cycle: .*inner"):
        compiled(flow)


def test_an_unknown_node() -> None:
    flow = Flow("f")
    flow.add(A, after="nobody")
    with pytest.raises(InvalidFlow, match="node 'a' of flow 'f' waits for an unknown node 'nobody'"):
        compiled(flow)


def test_a_node_of_another_flow() -> None:
    flow, other = Flow("f"), Flow("other")
    b = other.add(B)
    for after in (b, b.failed, any_of(b)):
        flow = Flow("f")
        flow.add(A, after=after)
        with pytest.raises(InvalidFlow, match="node 'a' of flow 'f' waits for node 'b' of another flow, 'other'"):
            compiled(flow)
    with pytest.raises(InvalidFlow, match="node 'c' of flow 'f' uses the result of node 'b' of flow 'other'"):
        flow = Flow("f")
        flow.add(job("c", x=b.result))
        compiled(flow)


def test_two_nodes_of_one_name() -> None:
    flow = Flow("f")
    flow.add(A, name="x")
    flow.add(B, name="x")
    with pytest.raises(InvalidFlow, match="flow 'f' has two nodes named 'x'"):
        compiled(flow)
    flow = Flow("f")
    flow.add(A, name="x")
    flow.on_finish(B, name="x")
    with pytest.raises(InvalidFlow, match="two nodes named 'x'"):
        compiled(flow)


def test_two_nodes_of_one_name_by_way_of_an_inner_flow() -> None:
    flow, inner = Flow("f"), Flow("inner")
    flow.add(inner, name="a")
    inner.add(A, name="b")
    flow.add(A, name="a/b")
    with pytest.raises(InvalidFlow, match="two nodes named 'a/b'"):
        compile_flow(flow, encode, json.dumps, mint)


def test_a_join_on_one_node_by_two_names() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(B, after=at_least(2, a, "a"))
    with pytest.raises(InvalidFlow, match="the same condition twice"):
        compiled(flow)


def test_a_single_job_has_no_flow() -> None:
    numbers = count(1)
    plan = compile_job(job("a", x=1), encode, json.dumps, lambda: UUID(int=next(numbers)))
    assert (plan.jobs[0].flow_id, plan.jobs[0].name, plan.flows, plan.edges) == (None, None, [], [])
    node = Flow("f").add(A)
    with pytest.raises(InvalidFlow, match="only be used in that node's flow"):
        compile_job(job("b", x=node.result), encode, json.dumps, lambda: FLOW)


# -- size ----------------------------------------------------------------------------------------------------------------


def test_a_chain_of_ten_thousand_written_backwards() -> None:
    flow = Flow("f")
    for number in reversed(range(10_000)):
        flow.add(A, name=str(number), after=str(number - 1) if number else None)
    plan = compile_flow(flow, encode, json.dumps, mint).plan
    assert [row.name for row in plan.free] == ["0"]
    assert len(plan.edges) == 10_000


def recorded(rows: Rows) -> dict[str, list[str]]:
    return {
        name: [rows.name(id) for id in row.parents]
        for name, row in rows.by_name.items()
        if row.parents is not None and row.kind != Kind.END
    }


def test_the_end_of_a_flow_records_its_last_nodes() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(B, after=a, name="b")
    flow.add(B, after=a, name="c")
    rows = compiled(flow)
    assert [rows.name(id) for id in rows.by_name["END"].parents or ()] == ["b", "c"]


def test_parents_are_recorded_where_they_are_asked_for() -> None:
    flow = Flow("f")
    a, b, c = (flow.add(job(name)) for name in "abc")
    flow.add(job("plain"), after=[a, any_of(b, c)])
    flow.add(job("taker"), after=[a, a.finished])
    flow.add(job("taker"), name="free")
    assert recorded(compiled(flow, encode_for_takers)) == {"taker": ["a"], "free": []}


def test_the_joins_that_parents_are_seen_through_record_theirs() -> None:
    flow, inner = Flow("f"), Flow("inner")
    a, b, c = (flow.add(job(name)) for name in "abc")
    flow.add(inner, after=[a, any_of(b, c)])
    inner.add(job("taker"))
    inner.add(job("plain"))
    flow.on_finish(job("taker"), name="after")
    found = recorded(compiled(flow, encode_for_takers))
    (between,) = set(found) - {"inner/taker", "inner/(start)", "after"}
    assert found[between] == ["b", "c"]
    assert found["inner/taker"] == ["inner/(start)"]
    assert sorted(found["inner/(start)"]) == sorted(["a", between])
    assert found["after"] == ["END"]


def test_a_thousand_behind_a_thousand_record_no_million() -> None:
    flow, inner = Flow("f"), Flow("inner")
    flow.add(inner, after=flow.group(*(job("first") for _ in range(1000))))
    inner.group(*(job("taker") for _ in range(1000)))
    assert sum(map(len, recorded(compiled(flow, encode_for_takers)).values())) == 2000


# -- more than a fixed DAG ------------------------------------------------------------------------------------------------


def asked_of(rows: Rows) -> dict[tuple[str, str], dict[str, Any]]:
    return {(rows.name(parent), rows.name(child)): json.loads(test) for parent, child, _, test in rows.plan.tests}


def test_a_condition_on_a_result_is_stored_as_data() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(B, after=[a.when("total.0", ">", 5), a])
    rows = compiled(flow)
    assert asked_of(rows) == {("a", "b"): {"on": 0, "path": ["total", "0"], "op": ">", "value": 5}}
    assert rows.parents("b") == {"a succeeded"}
    assert rows.counters("b") == (2, 2)


def test_the_rivals_of_a_race_know_each_other() -> None:
    flow = Flow("f")
    a, b = flow.add(A), flow.add(B)
    flow.add(C, after=race(a, b))
    rows = compiled(flow)
    found = asked_of(rows)
    assert found["a", "c"] == {"on": 0, "rivals": [str(rows.by_name["b"].id)]}
    assert found["b", "c"] == {"on": 0, "rivals": [str(rows.by_name["a"].id)]}
    assert rows.counters("c") == (1, 2)
    assert {"a finished", "b finished", "c finished"} == rows.parents("END")


def test_what_a_racer_waits_for_is_waited_for_by_the_end() -> None:
    flow = Flow("f")
    slow = flow.add(A)
    racer = flow.add(B, after=slow)
    flow.add(D, after=race(racer, flow.add(C)))
    assert "a finished" in compiled(flow).parents("END")


def test_a_cleanup_takes_cancelled_parents() -> None:
    flow = Flow("f")
    a = flow.add(A)
    flow.add(B, after=[a, a.failed], cleanup=True)
    rows = compiled(flow)
    conditions = {condition for _, child, condition in rows.plan.edges if child == rows.by_name["b"].id}
    assert conditions == {4, 1}
    assert json.loads(rows.by_name["b"].options or "{}") == {"stays": True}


def test_compensations_wait_for_the_verdict_the_node_and_those_behind_it() -> None:
    flow = Flow("f")
    a = flow.add(A, compensate=job("undo a"))
    b = flow.add(B, after=a)
    c = flow.add(C, after=b, compensate=lambda node: job("undo c", given=node.result))
    flow.add(D, after=c)
    rows = compiled(flow)
    waits = {
        (rows.name(parent), rows.name(child), condition)
        for parent, child, condition in rows.plan.edges
        if "undo" in rows.name(child) or rows.name(child) in ("END", "(verdict)")
    }
    assert waits == {
        ("d", "(verdict)", 2),
        ("(verdict)", "undo a", 1), ("a", "undo a", 3), ("undo c", "undo a", 2),
        ("(verdict)", "undo c", 1), ("c", "undo c", 3),
        ("(verdict)", "END", 2), ("undo a", "END", 2), ("undo c", "END", 2),
    }  # fmt: skip
    assert json.loads(rows.by_name["END"].options or "{}") == {"verdict": str(rows.by_name["(verdict)"].id)}


def test_deadlines_of_jobs_and_flows() -> None:
    flow = Flow("f", deadline=5.0)
    flow.add(A.options(start_by=2.0))
    rows = compiled(flow)
    assert {(row.id, row.kind, row.delay) for row in rows.plan.deadlines} == {
        (FLOW, 1, 5.0),
        (rows.by_name["a"].id, 0, 2.0),
    }
    assert rows.plan.scheduled()


def test_nodes_of_types_that_are_not_known_share_no_limit() -> None:
    flow = Flow("f", limit=3)
    flow.add(JobSpec[Any]("a"))
    flow.add(JobSpec[Any]("b"))
    lanes = {row.type: row.queue for row in compiled(flow).plan.jobs if row.kind == 0}
    assert "type:a" in lanes["a"]
    assert "type:b" in lanes["b"]


def test_jobs_of_one_dispatch_that_say_nothing_themselves_share_what_they_ask_for() -> None:
    specs = [
        JobSpec[Any]("a", defaults={"limit": 3, "timeout": 2.0}),
        JobSpec[Any]("a"),
        JobSpec[Any]("b"),
        JobSpec[Any]("a", overrides={"priority": 1, "timeout": 3.0}),
        JobSpec[Any]("a"),
    ]
    plan = compile_jobs(specs, encode, json.dumps, uuid4, UUID(int=7))
    assert [row.type for row in plan.jobs] == ["a", "a", "b", "a", "a"]
    assert ["type:a" in row.queue for row in plan.jobs] == [True, False, False, False, False]
    assert [row.priority for row in plan.jobs] == [5, 5, 5, 1, 5]
    assert all(json.loads(str(row.options))["dispatched_by"] == str(UUID(int=7)) for row in plan.jobs)
    assert json.loads(str(plan.jobs[3].options))["timeout"] == 3.0
    assert len({row.id for row in plan.free}) == 5
