"""Dispatching: compile, insert, wake."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from flowrun import codec, mint
from flowrun.client.arguments import edited, plain_part
from flowrun.client.failures import Calls
from flowrun.client.failures import to_stored as callback_to_stored
from flowrun.client.hooks import Hooks
from flowrun.client.notify import Notifier
from flowrun.client.outbox import AttemptOutbox
from flowrun.client.runs import FlowRun, JobRun
from flowrun.client.singles import Singles
from flowrun.client.specs import Flow
from flowrun.client.troubles import Troubles
from flowrun.client.wait import Waits
from flowrun.client.writing import Writing
from flowrun.config import Settings
from flowrun.core import compile as compiler
from flowrun.core.attempt import Claimed
from flowrun.core.compile import Compiled
from flowrun.core.flow import Flow as CoreFlow
from flowrun.core.flow import Node
from flowrun.core.growth import Growth, compile_growth
from flowrun.core.job import JobSpec as CoreJobSpec
from flowrun.core.node import conditions
from flowrun.core.options import JobOptions
from flowrun.core.plan import Plan
from flowrun.core.references import contains, take_out
from flowrun.core.vertex import NO_ARGUMENTS, ONLY_THE_JOB, Encoded
from flowrun.errors import ConfigurationError, InvalidArguments, InvalidFlow, NotFound
from flowrun.logs import Log
from flowrun.registry import Definition, Registry
from flowrun.sealing import Sealing, rows
from flowrun.store import granted, reads
from flowrun.store.edits import Edit
from flowrun.store.listen import Channels
from flowrun.store.pool import Database, Id

logger = Log("flowrun.dispatch")

R = TypeVar("R")

_flow_ids = partial(mint.flow_ids, make=Id)

MANY_TYPES = 1000
"""Types of other programs that are remembered."""

LARGE = 1000
"""Nodes from which on compiling pauses the garbage collector."""


class Client:
    """What dispatching and waiting need, put together once."""

    def __init__(self, database: Database, registry: Registry, settings: Settings) -> None:
        self.database = database
        self.registry = registry
        self.settings = settings
        self.sealing = Sealing(settings.codec)
        """What encrypts, where the app has a codec."""
        self.channels = Channels(settings.schema)
        self.of_queues: Mapping[str, JobOptions] = {}
        """Options that a queue's jobs have, where nobody else says any."""
        self._asked: compiler.AskedByType = {}
        self.calls = Calls(self)
        """What runs when a job has failed."""
        self.hooks = Hooks(self)
        """What is told of jobs that start and end."""
        self.attempt: ContextVar[Claimed | None] = ContextVar("flowrun_attempt", default=None)
        """The job whose handler runs here."""
        self.clock: Callable[[], datetime | None] = lambda: None
        """The moment it is for schedules; None: by the database's clock."""
        self._elsewhere: set[str] = set()
        """Types without a handler here that were dispatched."""
        self.ahead = timedelta(0)
        """How far a test has moved time on: moments that are named now come so much sooner."""
        self.renew()

    async def open(self) -> None:
        """Connect, and ask once what the role may do. The caller closes ``database``, also where this fails."""
        await self.database.open()
        await granted.find_out(self.database)

    def renew(self) -> None:
        """Forget what belonged to another event loop: an app can be opened again in a new one (tests do)."""
        self.notifier = Notifier(self.database, self.channels)
        self.singles = Singles(self.database, self.notifier)
        self.writing = Writing(self.database, self.channels, self.notifier, self.singles)
        self.waits = Waits(self.database, self.channels, self.notifier, self.settings.listen_dsn)

    @property
    def troubles(self) -> Troubles:
        """What the database keeps the loops of this client from."""
        return self.notifier.troubles

    async def dispatch_job(self, spec: CoreJobSpec[R], *, tx: object = None, now: bool = False) -> JobRun[R]:
        """Store one job."""
        plan = self.plan_jobs([spec])
        if (outbox := self._outbox(tx, now)) is not None:
            await outbox.keep(plan)
            return self._runs(plan, {}, self.running())[0]
        return self._runs(plan, await self.writing.write(plan, tx))[0]

    async def dispatch_many(
        self, specs: Sequence[CoreJobSpec[Any]], *, tx: object = None, now: bool = False
    ) -> list[JobRun[Any]]:
        """Store many jobs in one transaction; the runs come in the order of ``specs``."""
        for number, spec in enumerate(specs):
            if not isinstance(spec, CoreJobSpec):
                raise ConfigurationError(
                    f"dispatch_many takes handler.job(...) items; item {number} is a {type(spec).__name__}"
                )
        plan = self.plan_jobs(specs)
        if (outbox := self._outbox(tx, now)) is not None:
            await outbox.keep(plan)
            return self._runs(plan, {}, self.running())
        return self._runs(plan, await self.writing.write(plan, tx))

    async def dispatch_flow(self, flow: Flow, *, tx: object = None, now: bool = False) -> FlowRun:
        """Store a flow."""
        compiled = self.plan_flow(flow)
        if (outbox := self._outbox(tx, now)) is not None:
            await outbox.keep(compiled.plan)
            return FlowRun(self, compiled.flow_id, flow.name, compiled.names, kept_by=self.running())
        duplicates = await self.writing.write(compiled.draft, tx)
        first = duplicates.get(compiled.flow_id)
        if first is None:
            return FlowRun(self, compiled.flow_id, flow.name, compiled.names)
        nodes = await self.writing.nodes(first, compiled.draft.keys[0], tx)
        return FlowRun(self, first, flow.name, nodes, duplicate=True)

    def set_of_queue(self, name: str, options: JobOptions) -> None:
        """From now on, the jobs of a queue have these options, where nobody else says any."""
        self.of_queues = {**self.of_queues, name: options}
        self._asked = {}

    def plan_jobs(self, specs: Sequence[CoreJobSpec[Any]]) -> Plan:
        """The rows of jobs without a flow, in the order of ``specs``. Raises InvalidArguments."""
        running = self.running()
        if len(self._asked) > MANY_TYPES:
            self._asked.clear()
        with _uncollected(len(specs)):
            plan = compiler.compile_jobs(
                specs, self.encode, codec.dump, mint.job_id, None if running is None else running.id, self._asked,
                None if running is None else self._lineage(running),
            )  # fmt: skip
            if self.sealing.active:
                rows.plan(self.sealing, plan)
        return plan.earlier(self.ahead) if self.ahead else plan

    def _lineage(self, running: Claimed) -> compiler.Lineage:
        stored = codec.load(running.options) if running.options is not None and "lineage" in running.options else {}
        before = stored.get("lineage", 0)
        return compiler.Lineage(before + 1 if type(before) is int else 1, self.settings.max_lineage)

    def plan_flow(self, flow: Flow) -> Compiled:
        """The rows of a flow, and its nodes. Raises InvalidFlow or InvalidArguments."""
        with _uncollected(len(flow.nodes)):
            compiled = compiler.compile_flow(flow, self.encode, codec.dump, _flow_ids)
            if self.sealing.active:
                rows.plan(self.sealing, compiled.plan)
        if self.ahead:
            compiled.plan = compiled.plan.earlier(self.ahead)
        if (running := self.running()) is not None:
            compiled.draft.flows = [row._replace(dispatched_by=running.id) for row in compiled.draft.flows]
        return compiled

    def plan_addition(
        self, flow_id: UUID, spec: CoreJobSpec[Any], after: str | Sequence[str] | None, name: str | None
    ) -> tuple[Growth, UUID]:
        """A node for a stored flow, and its id. Raises InvalidFlow or InvalidArguments."""
        fragment = CoreFlow("addition")
        node = fragment.add(spec, name=name)
        if after is not None:
            node.after = conditions(fragment, [after] if isinstance(after, str) else list(after))
        growth = compile_growth(fragment, flow_id, self.encode, codec.dump, _flow_ids)
        rows.plan(self.sealing, growth.plan)
        return growth, next(row.id for row in growth.plan.jobs if row.name == node.name)

    def stored_callback(self, spec: CoreJobSpec[Any]) -> dict[str, Any]:
        """A job that is to run after a failure, as it is stored with the one that may fail."""
        return callback_to_stored(self, spec)

    def running(self) -> Claimed | None:
        """The job whose handler this code is part of, while its attempt lasts."""
        job = self.attempt.get()
        return None if job is None or job.over else job

    def outbox(self, job: Claimed) -> AttemptOutbox:
        """What the handler of ``job`` dispatches and spawns."""
        if job.outbox is None:
            job.outbox = AttemptOutbox(job, self._compile_growth)
        return cast("AttemptOutbox", job.outbox)

    def _outbox(self, tx: object, now: bool) -> AttemptOutbox | None:
        """Where a dispatch waits for its handler's success; None: it is written at once."""
        job = self.running()
        return None if job is None or now or tx is not None else self.outbox(job)

    def _compile_growth(
        self, fragment: CoreFlow, flow_id: UUID, prefix: str, spawner: tuple[UUID, str], detached: list[Node[Any]]
    ) -> Growth:
        growth = compile_growth(
            fragment, flow_id, self.encode, codec.dump, _flow_ids, prefix=prefix, spawner=spawner, detached=detached
        )
        rows.plan(self.sealing, growth.plan)
        return growth

    def _runs(self, plan: Plan, duplicates: Mapping[UUID, UUID], kept_by: Claimed | None = None) -> list[JobRun[Any]]:
        return [
            JobRun(self, duplicates.get(row.id, row.id), row.type, duplicate=row.id in duplicates, kept_by=kept_by)
            for row in plan.jobs
        ]

    async def get_job(self, id: UUID) -> JobRun[Any]:
        """The job stored under ``id``."""
        found = await reads.job(self.database, id)
        if found is None:
            raise NotFound(f"no job {id} is stored")
        return JobRun(self, id, found["type"])

    async def get_flow(self, id: UUID) -> FlowRun:
        """The flow stored under ``id``."""
        found = await reads.flow(self.database, id)
        if found is None:
            raise NotFound(f"no flow {id} is stored")
        return FlowRun(self, id, found["name"], await reads.flow_nodes(self.database, id))

    def decode_result(self, type: str, result: str | None, id: UUID) -> Any:
        """The stored result of a job as the handler's return annotation says, where the handler is known here.

        Raises NotReadable.
        """
        if result is None:  # of a node that was skipped, say
            return None
        text = self.sealing.opened_json(result, id, "result")
        definition = self.registry.find(type)
        return codec.load(text) if definition is None else definition.result(text)

    def written_result(self, type: str, value: Any) -> str:
        """A result given by hand, as stored. Raises NotStorable, and Misfit where a handler is known that returns
        something else."""
        definition = self.registry.find(type)
        dump = codec.dump if definition is None else definition.returned.dump
        return dump(value, limit=self.settings.max_payload)

    def encode(self, spec: CoreJobSpec[Any], node: str | None) -> Encoded:
        """A job's arguments as stored: bound, checked, converted, references taken out."""
        definition = self.registry.find(spec.type)
        if definition is None and spec.type not in self._elsewhere:
            self._is_elsewhere(spec.type)
        takes_job = definition is None or definition.job_parameter is not None
        if not spec.args and not spec.kwargs and (definition is None or not definition.required):
            return ONLY_THE_JOB if takes_job else NO_ARGUMENTS
        arguments: Mapping[str, Any]
        found: list[Any] = []
        if definition is not None and not spec.args and definition.takes_as_they_are(spec.kwargs):
            arguments = spec.kwargs
        else:
            arguments = _given(spec, definition, _named(spec, node))
            if definition is None or not definition.takes_as_they_are(arguments):
                arguments, found = self._plain_arguments(arguments, definition, _named(spec, node))
        try:
            text = codec.dump(arguments, limit=self.settings.max_payload)
        except codec.NotStorable as error:
            at = f", argument {error.path!r}" if error.path else ", arguments"
            kind = "" if node is None else f" (type {spec.type!r})"
            raise InvalidArguments(f"{_named(spec, node)}{kind}{at}: {error.reason}") from None
        if not found:
            return tuple.__new__(Encoded, (text, (), (), takes_job))  # not Encoded(...): that costs twice as much
        sources: list[Node[Any]] = []
        numbers: dict[Any, int] = {}
        bindings = []
        for path, source, into in found:
            if source not in numbers:
                numbers[source] = len(sources)
                sources.append(source)
            bindings.append((path, numbers[source], list(into)))
        return Encoded(text, sources, bindings, takes_job)

    def _is_elsewhere(self, type: str) -> None:
        """A type without a handler here: another program's, or mistyped. Said once, where it looks like one of ours."""
        if len(self._elsewhere) >= MANY_TYPES:
            self._elsewhere.clear()
        self._elsewhere.add(type)
        if near := self.registry.near(type, likeness=0.85):
            logger.warning(
                "no handler of type %r is registered here: the job waits for a worker that has one; did you mean %s?",
                type, " or ".join(map(repr, near)),
            )  # fmt: skip

    def edited(self, type: str, args: Mapping[str, Any] | None, drop: Sequence[str] = ()) -> Edit | None:
        """Arguments to replace in a stored job, and those to take out. None: no change. Raises InvalidArguments."""
        if args is None and not drop:
            return None
        text, dropped = edited(self.registry.find(type), type, args or {}, drop, self.settings.max_payload)
        return Edit(text, self.sealing, dropped)

    def item(self, spec: CoreJobSpec[R], argument: str | None) -> tuple[CoreJobSpec[R], str]:
        """The job that each item of a map becomes, its other arguments by name, and the argument that is the item."""
        definition = self.registry.find(spec.type)
        given = dict(spec.kwargs)
        if definition is not None:
            given = definition.some(spec.args, spec.kwargs, f"map of {spec.type!r}")
            free = [name for name in definition.signature.parameters if name not in given]
            argument = argument or (free[0] if free else None)
        if argument is None or argument in given:
            raise InvalidFlow(
                f"map of {spec.type!r}: argument= must name the argument that receives the item, one that is not given"
            )
        if definition is not None:
            where = f"map of {spec.type!r}"
            given = {name: plain_part(definition, name, value, where) for name, value in given.items()}
        template = CoreJobSpec[R](spec.type, (), given, defaults=spec.defaults, overrides=spec.overrides)
        return template, argument

    def items(self, spec: CoreJobSpec[Any], argument: str, over: Any) -> Any:
        """What a map is over; where that is known, each item as an argument of its job. Raises InvalidArguments."""
        definition = self.registry.find(spec.type)
        if definition is None or not isinstance(over, list | tuple):
            return over
        where = f"map of {spec.type!r}, item"
        return [plain_part(definition, argument, item, f"{where} {number}") for number, item in enumerate(over)]

    def _plain_arguments(
        self, given: Mapping[str, Any], definition: Definition | None, where: str
    ) -> tuple[dict[str, Any], list[Any]]:
        arguments: dict[str, Any] = {}
        found: list[Any] = []
        for name, value in given.items():
            if contains(value):
                arguments[name] = take_out(value, [name], found)
            elif definition is None or definition.is_plain(name, value):
                arguments[name] = value
            else:
                arguments[name] = definition.plain(name, value, where)
        return arguments, found


def _given(spec: CoreJobSpec[Any], definition: Definition | None, where: str) -> Mapping[str, Any]:
    """A job's arguments by name. Raises InvalidArguments if they do not fit the handler."""
    if definition is not None:
        return definition.bind(spec.args, spec.kwargs, where)
    if spec.args:
        raise InvalidArguments(f"{where}: a job dispatched by name takes its arguments by name, in a dict")
    return spec.kwargs


def _named(spec: CoreJobSpec[Any], node: str | None) -> str:
    return f"job {spec.type!r}" if node is None else f"node {node!r}"


_AS_USUAL: AbstractContextManager[None] = nullcontext()


def _uncollected(nodes: int) -> AbstractContextManager[None]:
    return _without_collector() if nodes >= LARGE else _AS_USUAL


@contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage collection while a large flow is compiled: it would find all alive, in half of the whole time.

    Nor right after: what was made counts as old then. (To freeze and unfreeze moves it there, without a look at it. Not
    where the program has frozen something itself, which must stay so.)
    """
    pause = gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
