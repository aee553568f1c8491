"""A flow as written: nodes, and what each waits for.

flow = Flow("order-42")
pay = flow.add(charge_payment.job(order_id=42))
mail = flow.add(send_confirmation.job(order_id=42), after=pay)
flow.add(send_problem_email.job(), after=pay.failed)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast, overload

from flowrun.core import draw
from flowrun.core import options as job_options
from flowrun.core.job import JobSpec
from flowrun.core.options import JobOptions
from flowrun.core.references import Reference
from flowrun.core.states import Condition
from flowrun.errors import InvalidFlow

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["After", "Flow", "Join", "Node", "Reference", "When", "any_of", "at_least"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class When:
    """A condition on a node: ``node.succeeded``, ``node.failed`` or ``node.finished``."""

    node: Node[Any] | str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Join:
    """Several conditions of which ``count`` must be satisfied: what :func:`any_of` and :func:`at_least` make."""

    count: int
    whens: tuple[When, ...]


After: TypeAlias = "Node[Any] | When | Join | str | Sequence[Node[Any] | When | Join | str]"
"""What a node can wait for: nodes (by object or name), conditions, joins, or a list of them (all must be satisfied)."""


class Node(Generic[R_co]):
    """A place in a flow: a job, or a whole flow. Made by :meth:`Flow.add`."""

    __slots__ = ("after", "flow", "inner", "name", "named", "optional", "spec")

    def __init__(
        self,
        flow: Flow,
        name: str,
        *,
        named: bool,
        spec: JobSpec[R_co] | None,
        inner: Flow | None,
        optional: bool | None,
    ) -> None:
        self.flow = flow
        self.name = name
        self.named = named
        self.spec = spec
        self.inner = inner
        self.optional = optional
        self.after: list[When | Join] = []

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

    @property
    def result(self) -> R_co:
        """What the node will return, to be passed to a later node; it is filled in when that node runs.

        Passing it draws the edge. It stands for the value, so ``pay.result["id"]`` and ``pay.result.id`` work too.
        """
        return cast(R_co, Reference(self))

    def then(self, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Add a node that runs after this one succeeded.

        >>> flow = Flow("f")
        >>> flow.add(JobSpec("a")).then(JobSpec("b")).name
        'b'
        """
        return self.flow.add(spec, after=self, name=name)

    add_child = then

    def also_after(self, *after: Node[Any] | When | Join | str) -> Node[R_co]:
        """Let this node wait for more: nodes, conditions, joins, or names of nodes that are added later."""
        self.after.extend(self.flow._conditions(list(after)))
        return self

    def __repr__(self) -> str:
        """The name and the flow's."""
        return f"<Node {self.name!r} of flow {self.flow.name!r}>"


class Flow:
    """Jobs that wait for each other. Write it, then ``await flow.dispatch()``.

    ``output`` says which node's result is the flow's (a node or its name; default: the single last node, else a dict
    of all last nodes' results by name). ``tags`` are the flow's own; the other options are defaults for its jobs.
    """

    def __init__(
        self,
        name: str,
        *,
        output: Node[Any] | str | None = None,
        **defaults: Unpack[JobOptions],
    ) -> None:
        self.name = job_options.check_name("a flow's name", name)
        self.output = output
        self.defaults = job_options.check(defaults, f"flow {name!r}")
        self.tags: list[str] = list(self.defaults.pop("tags", ()))
        self.nodes: list[Node[Any]] = []
        self.callbacks: list[tuple[Condition, Node[Any]]] = []
        self.parent: Flow | None = None
        self._taken: dict[str, int] = {}

    @overload
    def add(
        self, what: JobSpec[R], *, after: After | None = None, name: str | None = None, optional: bool | None = None
    ) -> Node[R]: ...
    @overload
    def add(
        self, what: Flow, *, after: After | None = None, name: str | None = None, optional: bool | None = None
    ) -> Node[Any]: ...
    def add(
        self,
        what: JobSpec[Any] | Flow,
        *,
        after: After | None = None,
        name: str | None = None,
        optional: bool | None = None,
    ) -> Node[Any]:
        """Add a job, or a whole flow, as a node.

        It runs when all of ``after`` is satisfied; without ``after``, and without a parent's result among its
        arguments, at once. ``name`` is unique in the flow (default: the type's name, then ``type-2``...). With
        ``optional=True`` its failure stops nothing.

        >>> flow = Flow("f")
        >>> a = flow.add(JobSpec("a"))
        >>> flow.add(JobSpec("b"), after=a.finished)
        <Node 'b' of flow 'f'>
        """
        node = self._place(what, name, optional)
        self.nodes.append(node)
        if after is not None:
            node.after = self._conditions(after)
        return node

    def add_child(self, parent: Node[Any] | str, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Add a job that runs after ``parent`` succeeded: the parent/child form of ``add(spec, after=parent)``."""
        return self.add(spec, after=parent, name=name)

    def chain(
        self, *specs: JobSpec[Any] | Flow | Sequence[JobSpec[Any] | Flow], after: After | None = None
    ) -> list[Node[Any]]:
        """Add jobs each of which runs after the one before; the first after ``after``. A list is accepted too."""
        nodes: list[Node[Any]] = []
        for spec in flatten(specs):
            nodes.append(self.add(cast(Any, spec), after=nodes[-1] if nodes else after))
        return nodes

    def group(
        self, *specs: JobSpec[Any] | Flow | Sequence[JobSpec[Any] | Flow], after: After | None = None
    ) -> list[Node[Any]]:
        """Add jobs that run side by side, each after ``after``. A list is accepted too."""
        return [self.add(cast(Any, spec), after=after) for spec in flatten(specs)]

    def on_success(self, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Run ``spec`` when the flow ended and succeeded."""
        return self._callback(Condition.SUCCEEDED_ITSELF, spec, name)

    def on_failure(self, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Run ``spec`` when the flow ended and failed."""
        return self._callback(Condition.FAILED, spec, name)

    def on_finish(self, spec: JobSpec[R], *, name: str | None = None) -> Node[R]:
        """Run ``spec`` when the flow ended, whatever its outcome."""
        return self._callback(Condition.FINISHED, spec, name)

    def __str__(self) -> str:
        """The flow as a tree: each node under the first node it waits for."""
        return draw.tree(self)

    def mermaid(self) -> str:
        """The flow as a Mermaid flowchart."""
        return draw.mermaid(self)

    def __repr__(self) -> str:
        """The name and how many nodes it has."""
        return f"<{type(self).__name__} {self.name!r} of {len(self.nodes)} node(s)>"

    def _callback(self, condition: Condition, spec: JobSpec[R], name: str | None) -> Node[R]:
        node = self._place(spec, name, None)
        self.callbacks.append((condition, node))
        return node

    def _place(self, what: JobSpec[Any] | Flow, name: str | None, optional: bool | None) -> Node[Any]:
        if isinstance(what, Flow):
            what._enter(self)
            base = what.name
        elif isinstance(what, JobSpec):
            base = what.type
        else:
            raise InvalidFlow(
                f"flow {self.name!r}: add() takes handler.job(...) or a flow, not {type(what).__name__}"
                + (" (did you mean handler.job(...)?)" if callable(what) else "")
            )
        if name is not None:
            job_options.check_name("a node's name", name)
        return Node(
            self,
            self._unique(base) if name is None else self._reserve(name),
            named=name is not None,
            spec=what if isinstance(what, JobSpec) else None,
            inner=what if isinstance(what, Flow) else None,
            optional=optional,
        )

    def _enter(self, outer: Flow) -> None:
        if self.parent is not None:
            raise InvalidFlow(f"flow {self.name!r} is already a node of flow {self.parent.name!r}; write a second one")
        above: Flow | None = outer
        while above is not None:
            if above is self:
                raise InvalidFlow(f"cycle: flow {self.name!r} cannot be a node of itself")
            above = above.parent
        self.parent = outer

    def _reserve(self, name: str) -> str:
        self._taken.setdefault(name, 1)
        return name

    def _unique(self, base: str) -> str:
        count = self._taken.get(base, 0) + 1
        name = base if count == 1 else f"{base}-{count}"
        while name in self._taken:
            count += 1
            name = f"{base}-{count}"
        self._taken[base] = count
        self._taken.setdefault(name, 1)
        return name

    def _conditions(self, after: After) -> list[When | Join]:
        return [_condition(self, item) for item in (after if isinstance(after, list | tuple) else (after,))]


def any_of(*conditions: Node[Any] | When | str) -> Join:
    """Satisfied as soon as one of ``conditions`` is: ``flow.add(decide.job(), after=any_of(a, b))``."""
    return at_least(1, *conditions)


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


def flatten(specs: Iterable[Any]) -> list[Any]:
    """``(a, b)`` and ``([a, b],)`` alike."""
    flat: list[Any] = []
    for spec in specs:
        flat.extend(spec) if isinstance(spec, list | tuple) else flat.append(spec)
    return flat


def _condition(flow: Flow | None, item: Any) -> When | Join:
    if isinstance(item, When | Join):
        return item
    if isinstance(item, Node):
        return When(item, Condition.SUCCEEDED)
    if isinstance(item, str):
        return When(item, Condition.SUCCEEDED)
    where = f"flow {flow.name!r}: " if flow is not None else ""
    raise InvalidFlow(
        f"{where}after= takes nodes, conditions (node.failed, any_of(...)) or names of nodes, not {type(item).__name__}"
    )
