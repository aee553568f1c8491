"""A job to be, while its flow is laid out: what it runs, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from flowrun.core.flow import Flow, Node, Test
from flowrun.core.job import JobSpec
from flowrun.core.states import Condition, Kind


class Encoded(NamedTuple):
    """A job's arguments as they are stored; ``bindings`` name their sources by their place in ``sources``."""

    args: str
    sources: list[Node[Any]]
    bindings: list[tuple[list[str | int], int, list[str | int]]]
    takes_job: bool = False
    """Its handler may ask for the running job, and so for the parents: it does, or it is not known here."""


NO_ARGUMENTS = Encoded("{}", [], [])
ONLY_THE_JOB = Encoded("{}", [], [], takes_job=True)

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


class Vertex:
    """A job to be: of a handler, or one of flowrun's own.

    What is said of few is the class's until then: a large flow has many vertices, and pays for what it writes into
    each.
    """

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
    sinks: list[int] | None = None
    """Of an end: the flow's last nodes."""
    shown: bool = False
    """Its parents are recorded with it, for ``job.parents``."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        flow: Flow | None,
        node: Node[Any] | None,
        encoded: Encoded | None = None,
        parents: Parents | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.flow = flow
        """The flow it is a node of; None for the end of the outermost."""
        self.node = node
        self.encoded = encoded
        self.parents: Parents = {} if parents is None else parents
