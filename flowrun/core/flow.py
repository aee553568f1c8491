"""A flow as written: nodes, and what each waits for.

flow = Flow("order-42")
pay = flow.add(charge_payment.job(order_id=42))
mail = flow.add(send_confirmation.job(order_id=42), after=pay)
flow.add(send_problem_email.job(), after=pay.failed)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, overload

from flowrun.core import draw, svg
from flowrun.core import options as job_options
from flowrun.core.job import JobSpec
from flowrun.core.node import After, Compensation, Join, Node, Test, When, any_of, at_least, conditions, race
from flowrun.core.options import JobOptions, Retention
from flowrun.core.references import Reference
from flowrun.core.states import Condition, Kind
from flowrun.errors import InvalidFlow

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["After", "Flow", "Join", "Node", "Reference", "Test", "When", "any_of", "at_least", "race"]

R = TypeVar("R")

GATE_TYPE: Final = "flowrun.gate"
SLEEP_TYPE: Final = "flowrun.sleep"
MAP_TYPE: Final = "flowrun.map"

NO_DEFAULT: Final[Any] = object()
"""A gate without a default answer fails when its time is over."""


class Flow:
    """Jobs that wait for each other. Write it, then ``await flow.dispatch()``.

    ``output`` says which node's result is the flow's (a node or its name; default: the single last node, else a dict
    of all last nodes' results by name). ``deadline``: seconds from dispatch after which it is cancelled, if it is not
    done. ``tags``, ``key``, ``on_conflict``, ``key_ttl``, ``throttle`` and ``retention`` are the flow's own; the other
    options are defaults for its jobs.
    """

    def __init__(
        self,
        name: str,
        *,
        output: Node[Any] | str | None = None,
        deadline: float | None = None,
        **defaults: Unpack[JobOptions],
    ) -> None:
        self.name: str = job_options.check_name("a flow's name", name)
        self.output = output
        self.deadline: float | None = None if deadline is None else _seconds(deadline, f"flow {name!r}: deadline=")
        self.defaults: JobOptions = job_options.check(defaults, f"flow {name!r}")
        self.tags: list[str] = list(self.defaults.pop("tags", ()))
        own = {name: self.defaults.pop(name) for name in job_options.KEYING if name in self.defaults}
        self.keying: JobOptions = cast(JobOptions, own)
        if own.get("on_conflict") == job_options.DEBOUNCE:
            raise InvalidFlow(f"flow {name!r}: debounce= is for jobs; let a debounced job dispatch the flow")
        self.retention: Retention | None = self.defaults.pop("retention", None)
        self.nodes: list[Node[Any]] = []
        self.callbacks: list[tuple[Condition, Node[Any]]] = []
        self.compensations: list[tuple[Node[Any], Node[Any]]] = []
        """Nodes and what undoes them."""
        self.parent: Flow | None = None
        self._taken: dict[str, int] = {}

    @overload
    def add(
        self,
        what: JobSpec[R],
        *,
        after: After | None = None,
        name: str | None = None,
        optional: bool | None = None,
        cleanup: bool = False,
        compensate: Compensation | None = None,
    ) -> Node[R]: ...
    @overload
    def add(
        self,
        what: Flow,
        *,
        after: After | None = None,
        name: str | None = None,
        optional: bool | None = None,
        cleanup: bool = False,
        compensate: Compensation | None = None,
    ) -> Node[Any]: ...
    def add(
        self,
        what: JobSpec[Any] | Flow,
        *,
        after: After | None = None,
        name: str | None = None,
        optional: bool | None = None,
        cleanup: bool = False,
        compensate: Compensation | None = None,
    ) -> Node[Any]:
        """Add a job, or a whole flow, as a node.

        It runs when all of ``after`` is satisfied; without ``after``, and without a parent's result among its
        arguments, at once. ``name`` is unique in the flow (default: the type's name, then ``type-2``...). With
        ``optional=True`` its failure stops nothing. With ``cleanup=True`` it runs although the flow was cancelled: what
        it waits for may have been cancelled too. ``compensate`` undoes it, see :meth:`Node.compensate`.

        >>> flow = Flow("f")
        >>> a = flow.add(JobSpec("a"))
        >>> flow.add(JobSpec("b"), after=a.finished)
        <Node 'b' of flow 'f'>
        """
        waits = () if after is None else conditions(self, after)  # what is refused leaves no node behind
        node = self._place(what, name, optional)
        node.cleanup, node.after = cleanup, waits
        if compensate is not None:
            self._compensate(node, compensate, None)
        self.nodes.append(node)
        return node

    def wait_for(
        self,
        signal: str,
        *,
        after: After | None = None,
        timeout: float | None = None,
        answers: Sequence[Any] | None = None,
        default: Any = NO_DEFAULT,
        name: str | None = None,
        optional: bool | None = None,
    ) -> Node[Any]:
        """Add a gate: a node that no worker runs. It succeeds when ``await run.signal(signal, value)`` arrives.

        The value is its result. The signal may come before or after the gate is reached. After ``timeout`` seconds at
        the gate it fails, or has ``default`` as its result if that is given. With ``answers`` only these values are
        taken: a person's decision, and ``gate.when("yes")`` is a condition on it.

            gate = flow.wait_for("approved", after=pay, timeout=86400.0, answers=["yes", "no"], default="no")
            flow.add(ship.job(), after=gate.when("yes"))
        """
        job_options.check_name("a signal", signal)
        asked: dict[str, Any] = {"signal": signal}
        if timeout is not None:
            asked["timeout"] = _seconds(timeout, f"gate {signal!r}: timeout=")
        if answers is not None:
            asked["answers"] = list(answers)
            if not asked["answers"]:
                raise InvalidFlow(f"gate {signal!r}: answers= must hold at least one")
        if default is not NO_DEFAULT:
            asked["default"] = default
            if answers is not None and default not in asked["answers"]:
                raise InvalidFlow(f"gate {signal!r}: default={default!r} is not one of the answers")
        spec = JobSpec[Any](GATE_TYPE, (), asked, kind=Kind.GATE)
        return self.add(spec, after=after, name=name or self._unique(signal), optional=optional)

    def sleep(self, seconds: float, *, after: After | None = None, name: str | None = None) -> Node[None]:
        """Add a durable timer: a node that succeeds ``seconds`` after what it waits for."""
        lasting = _seconds(seconds, f"flow {self.name!r}: sleep()")
        spec = JobSpec[None](SLEEP_TYPE, overrides={"delay": lasting}, kind=Kind.SLEEP)
        return self.add(spec, after=after, name=name or self._unique("sleep"))

    def _map(
        self,
        spec: JobSpec[R],
        over: Any,
        argument: str,
        *,
        after: After | None,
        name: str | None,
        optional: bool | None,
        on_error: Literal["finish", "cancel_siblings"],
    ) -> Node[list[R]]:
        """Add a node that becomes one job of ``spec`` an item; ``argument`` receives the item."""
        if not isinstance(over, list | tuple | Reference):
            raise InvalidFlow(
                f"map of {spec.type!r}: over= takes a list, or the result of a node that gives one; got {over!r:.100}"
            )
        if on_error not in ("finish", "cancel_siblings"):
            raise InvalidFlow(
                f"map of {spec.type!r}: on_error= must be 'finish' or 'cancel_siblings'; got {on_error!r}"
            )
        asked = {"over": over, "argument": argument, "on_error": on_error, "with": spec.kwargs}
        mapping = JobSpec[Any](MAP_TYPE, (), asked, kind=Kind.MAP, item=spec)
        return self.add(mapping, after=after, name=name or self._unique(spec.type), optional=optional)

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

    def svg(self) -> str:
        """The flow as an SVG picture: ``Path("order.svg").write_text(flow.svg())``."""
        return svg.svg(self)

    def __repr__(self) -> str:
        """The name and how many nodes it has."""
        return f"<{type(self).__name__} {self.name!r} of {len(self.nodes)} node(s)>"

    def _callback(self, condition: Condition, spec: JobSpec[R], name: str | None) -> Node[R]:
        node = self._place(spec, name, None)
        self.callbacks.append((condition, node))
        return node

    def _place(self, what: JobSpec[Any] | Flow, name: str | None, optional: bool | None) -> Node[Any]:
        if isinstance(what, JobSpec):
            base = what.type
        elif isinstance(what, Flow):
            what._enter(self)
            base = what.name
        else:
            raise InvalidFlow(
                f"flow {self.name!r}: add() takes handler.job(...) or a flow, not {type(what).__name__}"
                + (" (did you mean handler.job(...)?)" if callable(what) else "")
            )
        if name is not None:
            job_options.check_name("a node's name", name)
        if optional is not None and not isinstance(optional, bool):
            raise InvalidFlow(f"flow {self.name!r}: optional= takes True or False; got {optional!r}")
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

    def _compensate(self, node: Node[Any], what: Compensation, name: str | None) -> Node[Any]:
        if node.compensation is not None:
            raise InvalidFlow(
                f"node {node.name!r} of flow {self.name!r} has a compensation, {node.compensation.name!r}"
            )
        spec = what(node) if callable(what) and not isinstance(what, JobSpec) else what
        if not isinstance(spec, JobSpec):
            raise InvalidFlow(
                f"node {node.name!r} of flow {self.name!r}: compensate= takes handler.job(...), or a function from the "
                f"node to one, not {type(spec).__name__}"
            )
        undo = self._place(spec, name, None)
        self.compensations.append((node, undo))
        node.compensation = undo
        return undo


def flatten(specs: Iterable[Any]) -> list[Any]:
    """``(a, b)`` and ``([a, b],)`` alike."""
    flat: list[Any] = []
    for spec in specs:
        flat.extend(spec) if isinstance(spec, list | tuple) else flat.append(spec)
    return flat


def _seconds(value: Any, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or not 0 <= value <= job_options.LONGEST:
        raise InvalidFlow(f"{what} takes a number of seconds, not negative and at most 100 years; got {value!r}")
    return float(value)
