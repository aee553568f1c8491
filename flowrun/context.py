"""The running job, as its handler sees it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from flowrun.core import parents as core_parents
from flowrun.core.options import check_name
from flowrun.core.states import Outcome
from flowrun.errors import FlowrunError, NotFound
from flowrun.logs import Log

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from flowrun.core.job import JobSpec
    from flowrun.core.node import After, Node

P = ParamSpec("P")
R = TypeVar("R")

_logger = Log("flowrun.job")

OUTCOMES: dict[int, Literal["succeeded", "failed", "cancelled", "skipped"]] = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.SKIPPED: "skipped",
}


class _Done:
    """Awaited, it is over already."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


DONE: Awaitable[None] = _Done()


class Services(Protocol):
    """What a running job asks of the worker that runs it."""

    async def step(self, name: str, call: partial[Any]) -> Any:
        """The value of a step, remembered or run."""
        ...

    def transaction(self) -> Transaction:
        """A transaction in which the job can be settled."""
        ...

    def spawn(self, spec: Any, after: Any, name: str | None, detached: bool) -> Any:
        """Add a node to the job's own flow."""
        ...

    def report(self, fraction: float, message: str | None) -> Awaitable[None]:
        """Say how far the job is: when awaited, or, where no event loop runs, at once."""
        ...


class Transaction(Protocol):
    """A handler's own transaction: ``async with job.transaction() as tx:``."""

    connection: Any
    """An asyncpg connection of the app's pool, in a transaction."""

    async def complete(self, result: Any = None) -> None:
        """Settle the job in this transaction, with ``result``; what it dispatched and spawned so far goes with it.

        All of it is committed when the block is left, together with what was written by ``connection``, or nothing.
        What the handler returns afterwards counts no more. Raises LeaseLost if the job is somebody else's by now, was
        cancelled or resolved; FlowrunError when called twice.
        """
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Parent:
    """A node that the running job waited for, as it stood when the job was claimed first.

    if job.parents["invoice"].outcome == "failed":
        job.log.warning("no invoice: %s", job.parents["invoice"].error)
    """

    name: str
    outcome: Literal["succeeded", "failed", "cancelled", "skipped"] | None
    """How it ended; None: it had not ended, because the job needed only some of its parents."""
    result: Any = None
    """What it returned, as JSON has it; None where there is nothing."""
    error: str | None = None
    """Why it failed, was skipped or cancelled; of a flow that failed, the error of its first job that did."""
    error_type: str | None = None
    """The name of the exception, if it failed."""
    cause: UUID | None = None
    """If it was skipped: the parent of its own because of which."""


class Parents(Mapping[str, Parent]):
    """A job's parents by name. A result is read from its JSON when its parent is asked for."""

    __slots__ = ("_found", "_load", "_made")

    def __init__(self, found: core_parents.Parents, load: Callable[[str], Any]) -> None:
        self._found = found
        self._load = load
        self._made: dict[str, Parent] = {}

    def __getitem__(self, name: str) -> Parent:
        """The parent written as ``name`` in the same flow, or stored so (``inner/step``). Raises NotFound."""
        parent = self._made.get(name)
        if parent is None:
            one = self._found.written.get(name) or self._found.full.get(name)
            if one is None:
                has = f"its parents are {', '.join(self._found.written)}" if self._found.written else "it has none"
                raise NotFound(f"the job has no parent {name!r}; {has}")
            parent = self._made[name] = self._parent(name, one)
        return parent

    def __contains__(self, name: object) -> bool:
        return name in self._found.written or name in self._found.full

    def get(self, name: str, default: Any = None) -> Any:
        """The parent of that name, or ``default``."""
        try:
            return self[name]
        except NotFound:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._found.written)

    def __len__(self) -> int:
        return len(self._found.written)

    def __repr__(self) -> str:
        """The names and how each ended; never the results."""
        shown = ", ".join(
            f"{name}: {OUTCOMES[one.outcome] if one.outcome is not None else None}"
            for name, one in self._found.written.items()
        )
        return f"<Parents {shown}>" if shown else "<Parents>"

    def _parent(self, name: str, one: core_parents.Ancestor) -> Parent:
        error: dict[str, Any] = {} if one.error is None else self._load(one.error)
        return Parent(
            name,
            None if one.outcome is None else OUTCOMES[one.outcome],
            None if one.result is None else self._load(one.result),
            error.get("message"),
            error.get("type"),
            one.cause,
        )


def _no_json(_text: str) -> None:
    return None


_NO_PARENTS = Parents(core_parents.Parents({}, {}), _no_json)


@dataclass(frozen=True, slots=True)
class JobError:
    """The failure of a job, told to what runs because of it.

    @charge_payment.on_failure
    async def sorry(job: Job, error: JobError) -> None:
        job.log.error("order %s: %s", error.args["order_id"], error.message)
    """

    type: str
    """The exception's type."""
    message: str
    traceback: str | None
    detail: Mapping[str, Any]
    """What else the exception told: its ``notes``, its ``cause``, and what it has by the name ``detail``."""
    job_id: UUID
    job_type: str
    queue: str
    name: str | None
    """Of the node, in a flow."""
    flow_id: UUID | None
    args: Mapping[str, Any]
    """The job's arguments, as stored."""
    attempt: int
    """The last one's number."""
    failed_at: datetime | None
    priority: int = 5
    tags: tuple[str, ...] = ()


class Job:
    """The running job. A handler's parameter annotated ``Job`` receives it.

    @app.handler
    async def send_email(job: Job, to: str) -> None:
        job.log.info("attempt %d of %d", job.attempt, job.attempts)
    """

    __slots__ = (
        "_log", "_services", "attempt", "attempts", "dispatched_by", "flow_id", "id", "name", "parents", "priority",
        "queue", "schedule", "scheduled_for", "tags", "type",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: UUID,
        type: str,
        queue: str = "default",
        attempt: int = 1,
        attempts: int = 1,
        flow_id: UUID | None = None,
        name: str | None = None,
        priority: int = 5,
        tags: tuple[str, ...] = (),
        dispatched_by: UUID | None = None,
        schedule: str | None = None,
        scheduled_for: datetime | None = None,
        parents: Mapping[str, Parent] | None = None,
        services: Services | None = None,
    ) -> None:
        self.id: UUID = id
        """Its id: the same in every attempt, so it serves as an idempotency key for the outside world."""
        self.type: str = type
        """The type its handler is registered by."""
        self.queue: str = queue
        """The queue it waited in."""
        self.attempt: int = attempt
        """The number of this attempt; the first is 1."""
        self.attempts: int = attempts
        """How many attempts it has."""
        self.flow_id: UUID | None = flow_id
        """The flow it is a node of, if any."""
        self.name: str | None = name
        """The node's name in that flow."""
        self.priority: int = priority
        """0 to 9, lower runs first."""
        self.tags: tuple[str, ...] = tags
        """The words it was dispatched with."""
        self.dispatched_by: UUID | None = dispatched_by
        """The job whose handler dispatched it, if one did."""
        self.schedule: str | None = schedule
        """The key of the schedule that dispatched it, or its flow."""
        self.scheduled_for: datetime | None = scheduled_for
        """The tick it was dispatched for, whenever that was taken; the same in every attempt."""
        self.parents: Mapping[str, Parent] = _NO_PARENTS if parents is None else parents
        """The nodes it waited for, by name: ``job.parents["invoice"].result``. NotFound names those there are."""
        self._services = services
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``flowrun.job``) whose records carry ``job_id``, ``job_type`` and ``attempt``."""
        if self._log is None:
            extra: dict[str, Any] = {"job_id": str(self.id), "job_type": self.type, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(cast("logging.Logger", _logger), extra)
        return self._log

    @overload
    async def step(self, name: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def step(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run ``fn`` and remember what it returns: a later attempt of this job gets that without running it.

        Steps are known by ``name``, in any order, side by side too; the same name asked for again in the same attempt
        gives the same value. The value goes through JSON, the first time too, and is converted as ``fn``'s return
        annotation says: what it cannot carry raises NotStorable. What ``fn`` raises passes on and is not remembered.
        ``fn`` is async, or plain and run in a thread. What is remembered first stays: ``fn`` may run again after a
        crash, but no late attempt changes a value that was used. In a job made by hand, for a test, ``fn`` just runs.

            page = await job.step("fetch", fetch, url)
        """
        check_name("a step's name", name)
        if not callable(fn):
            if inspect.iscoroutine(fn):
                fn.close()
            raise TypeError(f"step {name!r} takes a function, then its arguments: job.step({name!r}, fetch, url)")
        call = partial(fn, *args, **kwargs)
        if self._services is not None:
            return await self._services.step(name, call)
        value = call()
        return await value if inspect.isawaitable(value) else value

    def spawn(
        self,
        spec: JobSpec[R],
        *,
        after: After | None = None,
        name: str | None = None,
        detached: bool = False,
    ) -> Node[R]:
        """Add a node to the flow that this job is a node of. It is there if, and only if, this attempt succeeds.

        It runs after this job, or after what ``after`` says: nodes spawned before, or names of nodes of the flow. What
        waits for this job waits for it too, unless it is ``detached``: then only the end of the flow does. Names are
        made unique unless given. Raises InvalidFlow if the job is no node of a flow.

            for page in pages:
                job.spawn(fetch.job(page))
        """
        if self._services is None:
            from flowrun.core.flow import Flow

            return Flow(self.name or self.type).add(spec, name=name)
        node: Node[R] = self._services.spawn(spec, after, name, detached)
        return node

    def transaction(self) -> Transaction:
        """A transaction for what the handler writes, in which the job itself can be settled.

            async with job.transaction() as tx:
                await tx.connection.execute("update orders set state = 'paid' where id = $1", order_id)
                await audit.dispatch(order_id=order_id)
                await tx.complete({"paid": True})

        The handler's writes, its result, what it dispatched and spawned, and the release of its children are committed
        together when the block is left, or, after an error or if the lease was lost, not at all. Without
        ``complete()`` it is an ordinary transaction. Let ``complete()`` be the last statement: it locks rows of the
        job's flow, and others wait for whatever comes after it. The connection is one of the app's pool
        (``pool_size``). For ``async def`` handlers. Raises FlowrunError where no worker runs the job.
        """
        if self._services is None:
            raise FlowrunError("job.transaction() is there while a worker runs the job")
        return self._services.transaction()

    def progress(self, fraction: float, message: str | None = None) -> Awaitable[None]:
        """Say how far the job is, from 0 to 1, for all who ask for its status. Stored at once; the last word counts.

        A plain function, in its thread or process, just calls it. A ``message`` is kept up to 500 characters. Raises
        ValueError for a fraction that is none.

            await job.progress(0.5, "rendered")
        """
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or not 0 <= fraction <= 1:
            raise ValueError(f"progress is a number from 0 to 1; got {str(fraction)[:80]}")
        if message is not None and not isinstance(message, str):
            raise ValueError(f"the message of a progress is a text; got {type(message).__name__}")
        return DONE if self._services is None else self._services.report(float(fraction), message)

    def __repr__(self) -> str:
        """Type, id and attempt; never the arguments."""
        return f"<Job {self.type!r} {self.id} attempt {self.attempt} of {self.attempts}>"


class CallNext(Protocol):
    """What a middleware calls to run the rest: further middleware, and the handler."""

    async def __call__(self, job: Job = ..., /) -> Any:
        """Run the rest; what the handler returns. ``job`` is handed to the next middleware."""
        ...
