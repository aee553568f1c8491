"""Places in a flow, and the conditions other places put on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast, overload

from flowrun.core.job import JobSpec
from flowrun.core.references import Reference
from flowrun.core.states import Condition
from flowrun.errors import InvalidFlow

if TYPE_CHECKING:
    from flowrun.core.flow import Flow

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OPERATORS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "contains")

MAX_RACERS: Final = 100

_MISSING: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Test:
    """What is asked of a result: the part at ``path`` compared with ``value``. Stored as data, decided in SQL."""

    __test__ = False  # pytest: this is no test case

    path: tuple[str | int, ...]
    op: str
    value: Any = field(compare=False)
    shown: str
    """The value as text, to tell tests apart: values need not be hashable."""

    def __str__(self) -> str:
        """As people read it."""
        left = ".".join(str(part) for part in self.path) or "result"
        return f"{left} {self.op} {self.shown}"


@dataclass(frozen=True, slots=True)
class When:
    """A condition on a node: ``node.succeeded``, ``node.failed``, ``node.finished`` or ``node.when(...)``."""

    node: Node[Any] | str
    condition: Condition
    test: Test | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Several conditions of which ``count`` must be satisfied: what ``any_of``, ``at_least`` and ``race`` make."""

    count: int
    whens: tuple[When, ...]
    race: bool = False
    """The nodes that did not win are cancelled."""


Wait: TypeAlias = "Node[Any] | When | Join"
"""One of the things a node waits for, all of which must be satisfied; a node alone stands for its success."""

After: TypeAlias = "Node[Any] | When | Join | str | Sequence[Node[Any] | When | Join | str]"
"""What a node can wait for: nodes (by object or name), conditions, joins, or a list of them (all must be satisfied)."""

Compensation: TypeAlias = "JobSpec[Any] | Callable[[Node[Any]], JobSpec[Any]]"
"""What undoes a node: a job, or a function from the node to one, for a job that takes the node's result."""


class Node(Generic[R_co]):
    """A place in a flow: a job, or a whole flow. Made by :meth:`Flow.add`."""

    __slots__ = ("after", "cleanup", "compensation", "flow", "inner", "name", "named", "optional", "place", "spec")

    def __init__(
        self,
        flow: Flow,
        name: str,
        *,
        named: bool,
        spec: JobSpec[R_co] | None,
        inner: Flow | None,
        optional: bool | None,
        cleanup: bool = False,
    ) -> None:
        self.flow: Flow = flow
        self.name: str = name
        self.named: bool = named
        self.spec: JobSpec[R_co] | None = spec
        self.inner: Flow | None = inner
        self.optional: bool | None = optional
        self.cleanup: bool = cleanup
        self.compensation: Node[Any] | None = None
        self.after: Sequence[Wait] = ()
        self.place: int = -1
        """Where its vertex is, in the layout that was made last of its flow."""

    @property
    def succeeded(self) -> When:
        """Satisfied when the node succeeded (or failed, if it is optional); the same as the node itself."""
        return When(self, Condition.SUCCEEDED)

    @property
    def failed(self) -> When:
        """Satisfied when the node failed."""
        return When(self, Condition.FAILED)

    @property
    def finished(self) -> When:
        """Satisfied when the node ended, whatever its outcome; skipped and cancelled included."""
        return When(self, Condition.FINISHED)

    @overload
    def when(self, value: Any, /) -> When: ...
    @overload
    def when(self, path: str | int | Sequence[str | int], op: str, value: Any, /) -> When: ...
    def when(self, path: Any, op: str = "==", value: Any = _MISSING, /) -> When:
        """Satisfied when the node succeeded and its result is as asked.

        ``when("yes")`` compares the whole result. ``when("total", ">", 100)`` compares a part of it: ``path`` is a key,
        keys joined by dots, or a list of keys and indexes (empty: the whole). The operators are ``== != < <= > >=``,
        ``in`` and ``not in`` (``value`` is a list), and ``contains``. What is missing counts as null; order is only
        between two numbers or two texts. Raises InvalidFlow for another operator.

            flow.add(review.job(), after=price.when("total", ">", 1000))
        """
        if value is _MISSING:
            path, value = (), path
        keys = _path(path)
        if op not in OPERATORS:
            raise InvalidFlow(f"node {self.name!r}: when() compares by one of {', '.join(OPERATORS)}; got {op!r}")
        if op in ("in", "not in") and not isinstance(value, list | tuple | set | frozenset):
            raise InvalidFlow(f"node {self.name!r}: when(..., {op!r}, ...) takes a list of values")
        value = list(value) if isinstance(value, tuple | set | frozenset) else value
        return When(self, Condition.SUCCEEDED, Test(keys, op, value, repr(value)))

    @property
    def result(self) -> R_co:
        """What the node will return, to be passed to a later node; it is filled in when that node runs.

        Passing it draws the edge. It stands for the value, so ``pay.result["id"]`` and ``pay.result.id`` work too.
        """
        return cast(R_co, Reference(self))

    def then(self, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Add a node that runs after this one succeeded.

        >>> from flowrun.core.flow import Flow
        >>> flow = Flow("f")
        >>> flow.add(JobSpec("a")).then(JobSpec("b")).name
        'b'
        """
        return self.flow.add(spec, after=self, name=name)

    add_child = then

    def also_after(self, *after: Node[Any] | When | Join | str) -> Node[R_co]:
        """Let this node wait for more: nodes, conditions, joins, or names of nodes that are added later."""
        self.after = (*self.after, *conditions(self.flow, after))
        return self

    def compensate(self, what: Compensation, *, name: str | None = None) -> Node[Any]:
        """Say what undoes this node, should the flow fail or be cancelled after the node succeeded.

        refund is run by ``charge.compensate(refund.job(charge=charge.result))``; the same as ``compensate=`` of
        ``flow.add``. Raises InvalidFlow if the node has a compensation.
        """
        return self.flow._compensate(self, what, name)

    def __repr__(self) -> str:
        """The name and the flow's."""
        return f"<Node {self.name!r} of flow {self.flow.name!r}>"


def any_of(*conditions: Node[Any] | When | str) -> Join:
    """Satisfied as soon as one of ``conditions`` is: ``flow.add(decide.job(), after=any_of(a, b))``."""
    return at_least(1, *conditions)


def race(*conditions: Node[Any] | When | str) -> Join:
    """Satisfied as soon as one of ``conditions`` is; the other nodes are then cancelled, in the same commit.

    Those that are running are interrupted. They do not count against the flow: it can succeed.

        flow.add(use.job(), after=race(fast, cheap))
    """
    if len(conditions) > MAX_RACERS:
        raise InvalidFlow(f"race() is between at most {MAX_RACERS} nodes; got {len(conditions)}")
    join = at_least(1, *conditions)
    return Join(1, join.whens, race=True)


def at_least(count: int, *conditions: Node[Any] | When | str) -> Join:
    """Satisfied as soon as ``count`` of ``conditions`` are: ``after=at_least(2, a, b, c)``.

    Raises InvalidFlow where that can never be, or always is.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(conditions):
        raise InvalidFlow(
            f"at_least({count!r}, ...) of {len(conditions)} condition(s): the count must be between 1 and their number"
        )
    whens: list[When] = []
    for item in conditions:
        condition = _condition(None, item)
        if isinstance(condition, Join):
            raise InvalidFlow("a join cannot stand inside another; let a node of its own wait for the inner one")
        whens.append(condition)
    if len(set(whens)) != len(whens):
        raise InvalidFlow("a join names the same condition twice: each counts once")
    return Join(count, tuple(whens))


def conditions(flow: Flow, after: After) -> tuple[Wait, ...]:
    """``after`` as conditions. Raises InvalidFlow for what cannot be one.

    Nodes stay as they are: a condition for each edge of a large flow would cost more than all the rest of it.
    """
    items = after if isinstance(after, list | tuple) else (after,)
    return tuple([item if isinstance(item, Node) else _condition(flow, item) for item in items])


def _condition(flow: Flow | None, item: Any) -> When | Join:
    if isinstance(item, When | Join):
        return item
    if isinstance(item, Node | str):
        return When(item, Condition.SUCCEEDED)
    where = f"flow {flow.name!r}: " if flow is not None else ""
    takes = f"{where}after= takes nodes, conditions (node.failed, any_of(...)) or names of nodes, not"
    if isinstance(item, Reference):
        raise InvalidFlow(f"{takes} the result {item!r}; to wait for a value of a result, write node.when(path, value)")
    raise InvalidFlow(f"{takes} {type(item).__name__}")


def _path(path: Any) -> tuple[str | int, ...]:
    if isinstance(path, str):
        return tuple(path.split(".")) if path else ()
    if isinstance(path, int):
        return (path,)
    keys = tuple(path)
    if not all(isinstance(key, str | int) and not isinstance(key, bool) for key in keys):
        raise InvalidFlow("a path in a result is made of texts and whole numbers")
    return keys
