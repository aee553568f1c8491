"""Which parents a job is shown, and by what names."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from flowrun.core.parents import Ancestor, Child, Scope, name
from flowrun.core.states import Kind

OUTER, INNER, CHILD, A, B, C = (UUID(int=n) for n in range(6))
SCOPES = {OUTER: Scope("outer", ""), INNER: Scope("in", "inner/")}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ancestor(id: UUID, flow: UUID | None, name: str, *, kind: Kind = Kind.HANDLER, parents=(), at=NOON) -> Ancestor:
    return Ancestor(id, flow, kind, name, parents, 1, at, "1")


def found(*ancestors: Ancestor) -> dict[UUID, Ancestor]:
    return {one.id: one for one in ancestors}


def test_nothing_recorded_and_nothing_found() -> None:
    assert name(Child(CHILD, INNER, None), {}, SCOPES).written == {}
    assert name(Child(CHILD, INNER, [A]), {}, SCOPES).written == {}


def test_names_without_and_with_what_is_before_them() -> None:
    rows = found(ancestor(A, OUTER, "a"), ancestor(B, INNER, "inner/b/c"))
    parents = name(Child(CHILD, INNER, [A, B]), rows, SCOPES)
    assert list(parents.written) == ["b/c", "a"]
    assert set(parents.full) == {"a", "inner/b/c"}


def test_the_nearer_flow_has_the_name() -> None:
    rows = found(ancestor(A, OUTER, "same"), ancestor(B, INNER, "inner/same"))
    parents = name(Child(CHILD, INNER, [A, B]), rows, SCOPES)
    assert {written: one.id for written, one in parents.written.items()} == {"same": B}
    assert {full: one.id for full, one in parents.full.items()} == {"same": A, "inner/same": B}


def test_the_end_of_its_own_flow_has_the_flows_name() -> None:
    parents = name(Child(CHILD, INNER, [INNER]), found(ancestor(INNER, OUTER, "inner", kind=Kind.END)), SCOPES)
    assert (list(parents.written), list(parents.full)) == (["in"], ["inner"])


def test_joins_are_seen_through_once_each_and_a_verdict_is_nobodys_node() -> None:
    rows = found(
        ancestor(A, OUTER, "(1 of 2)", kind=Kind.JOIN, parents=[B, C]),
        ancestor(B, OUTER, "b"),
        ancestor(C, OUTER, "(verdict)", kind=Kind.VERDICT),
    )
    assert list(name(Child(CHILD, OUTER, [B, A]), rows, SCOPES).written) == ["b"]


def test_what_is_not_to_be_seen_has_not_ended() -> None:
    rows = found(ancestor(A, OUTER, "a"), ancestor(B, OUTER, "b"))
    parents = name(Child(CHILD, OUTER, [A, B], {A}), rows, SCOPES)
    assert [(one.outcome, one.result) for one in parents.written.values()] == [(None, None), (1, "1")]
    assert parents.open() == {A}
