"""A job to be, while its flow is laid out: what it runs, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from flowrun.core.flow import Flow, Node, Test
from flowrun.core.job import JobSpec
from flowrun.core.states import FIRST_TEST, Condition, Kind

SUCCEEDED: Final[int] = Condition.SUCCEEDED
"""Members of an enum are slow to look up: 50 ns, and a large flow has many edges."""


class Encoded(NamedTuple):
    """A job's arguments as they are stored; ``bindings`` name their sources by their place in ``sources``."""

    args: str
    sources: Sequence[Node[Any]]
    bindings: Sequence[tuple[list[str | int], int, list[str | int]]]
    takes_job: bool = False
    """Its handler may ask for the running job, and so for the parents: it does, or it is not known here."""


NO_ARGUMENTS = Encoded("{}", (), ())
ONLY_THE_JOB = Encoded("{}", (), (), takes_job=True)

Encode = Callable[[JobSpec[Any], "str | None"], Encoded]
"""From a job and the name of its node (None: it has none)."""


class EdgeTest(NamedTuple):
    """What an edge asks beyond a plain condition."""

    on: Condition
    test: Test | None
    rivals: list[int]
    """Of a race: the other vertices, cancelled when this edge decides it."""
    choice: bool = False
    """One of several of which not all are needed."""


Parents: TypeAlias = "dict[tuple[int, int], EdgeTest | None]"
"""By parent's number and condition: a test, where the condition is a number from FIRST_TEST on."""


class Asked(NamedTuple):
    """What a job asks for, merged from all who have a say: the columns that come of it."""

    queue: str
    """Or a lane of it."""
    priority: int
    optional: bool
    delay: float | None
    run_at: datetime | None
    options: str | None
    """``stored`` as JSON."""
    stored: dict[str, Any]
    """The options that only the worker reads."""
    start_by: datetime | float | None = None


@dataclass(slots=True)
class Said:
    """What is said of few vertices. Changed by :meth:`Vertex.say` alone: most share one of which nothing is said."""

    need: int | None = None
    """How many parents are needed; None: all."""
    cleanup: bool = False
    """Runs although its flow was cancelled, and what it waits for too."""
    stays: bool = False
    """Not cancelled with its flow."""
    after_end: bool = False
    """Not waited for by the end (or verdict) of its flow: a callback, or of flowrun's own what comes after a
    verdict."""
    compensates: Node[Any] | None = None
    sinks: Sequence[int] | None = None
    """Of an end: the flow's last nodes."""
    bound: Encoded | None = None
    """Its arguments, where parents' results belong into them."""
    bindings: str | None = None
    """Where they belong, as JSON."""
    more: Parents | None = None
    """What it waits for where one condition on all parents does not say it."""


NOTHING: Final = Said()


class Vertex:
    """A job to be: of a handler, or one of flowrun's own.

    A large flow has many, and most are alike: they have a node, arguments, and parents that must have succeeded. What
    else there is to say of some is one more object, which the others share.
    """

    __slots__ = ("args", "asked", "flow", "kind", "name", "node", "on", "parents", "said", "shown")

    def __init__(self, kind: Kind, name: str, flow: Flow | None, node: Node[Any] | None, args: str = "{}") -> None:
        self.kind = kind
        self.name = name
        self.flow = flow
        """The flow it is a node of; None for the end of the outermost."""
        self.node = node
        self.args = args
        self.parents: Sequence[int] = ()
        """The numbers of those it waits for on the condition ``on``, each once."""
        self.on: int = SUCCEEDED
        self.said: Said = NOTHING
        self.shown = False
        """Its parents are recorded with it, for ``job.parents``."""
        self.asked: Asked | None = None

    def say(self, **what: Any) -> None:
        """Say something that is said of few."""
        if self.said is NOTHING:
            self.said = Said()
        for name, value in what.items():
            setattr(self.said, name, value)

    def wait(self, parents: Parents) -> None:
        """Wait for ``parents``, and for nothing else."""
        conditions = {condition for _, condition in parents}
        if len(conditions) == 1 and (on := conditions.pop()) < FIRST_TEST:
            self.parents, self.on = tuple([parent for parent, _ in parents]), on
        elif parents:
            self.say(more=parents)

    def wait_too(self, parent: int, condition: int) -> None:
        """Wait for one more."""
        self.say(more={**(self.said.more or {}), (parent, condition): None})

    def waits(self) -> Iterator[tuple[int, int, EdgeTest | None]]:
        """All it waits for: parent, condition, test."""
        on = self.on
        for parent in self.parents:
            yield parent, on, None
        for (parent, condition), test in (self.said.more or {}).items():
            yield parent, condition, test

    @property
    def total(self) -> int:
        """How many edges lead to it."""
        return len(self.parents) + len(self.said.more or ())
