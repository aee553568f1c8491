"""Dispatching: compile, insert, wake."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from flowrun import codec, mint
from flowrun.client.notify import Notifier
from flowrun.client.runs import FlowRun, JobRun
from flowrun.client.shield import shielded
from flowrun.client.specs import Flow
from flowrun.client.wait import Waits
from flowrun.config import Settings
from flowrun.core import compile as compiler
from flowrun.core.flow import Node
from flowrun.core.job import JobSpec as CoreJobSpec
from flowrun.core.layout import NO_ARGUMENTS, Encoded
from flowrun.core.plan import Plan
from flowrun.core.references import contains, take_out
from flowrun.errors import ConfigurationError, InvalidArguments, NotFound
from flowrun.registry import Definition, Registry
from flowrun.store import insert, reads
from flowrun.store.listen import Channels
from flowrun.store.pool import Database, Id

R = TypeVar("R")

_flow_ids = partial(mint.flow_ids, make=Id)

LARGE = 1000
"""Nodes from which on compiling pauses the garbage collector."""


class Client:
    """What dispatching and waiting need, put together once."""

    def __init__(self, database: Database, registry: Registry, settings: Settings) -> None:
        self.database = database
        self.registry = registry
        self.settings = settings
        self.channels = Channels(settings.schema)
        self.renew()

    def renew(self) -> None:
        """Forget what belonged to another event loop: an app can be opened again in a new one (tests do)."""
        self.notifier = Notifier(self.database, self.channels)
        self.waits = Waits(self.database, self.channels, self.notifier, self.settings.listen_dsn)

    async def dispatch_job(self, spec: CoreJobSpec[R]) -> JobRun[R]:
        """Store one job."""
        plan = compiler.compile_job(spec, self.encode, codec.dump, mint.job_id)
        await self.database.repeat(lambda connection: insert.insert_jobs(connection, self.database.sql, plan.jobs))
        self._wake(plan)
        return JobRun(self, plan.jobs[0].id, spec.type)

    async def dispatch_many(self, specs: Sequence[CoreJobSpec[Any]]) -> list[JobRun[Any]]:
        """Store many jobs in one transaction; the runs come in the order of ``specs``."""
        plan = Plan()
        for number, spec in enumerate(specs):
            if not isinstance(spec, CoreJobSpec):
                raise ConfigurationError(
                    f"dispatch_many takes handler.job(...) items; item {number} is a {type(spec).__name__}"
                )
            one = compiler.compile_job(spec, self.encode, codec.dump, mint.job_id)
            plan.jobs += one.jobs
        plan.free = plan.jobs
        if plan.jobs:
            await self.database.repeat(lambda connection: insert.insert_jobs(connection, self.database.sql, plan.jobs))
            self._wake(plan)
        return [JobRun(self, row.id, row.type) for row in plan.jobs]

    async def dispatch_flow(self, flow: Flow) -> FlowRun:
        """Store a flow."""
        with _uncollected(len(flow.nodes)):
            compiled = compiler.compile_flow(flow, self.encode, codec.dump, _flow_ids)
        write = self.database.repeat(
            lambda connection: insert.insert_flow(connection, self.database.sql, compiled.plan)
        )
        await shielded(write)
        self._wake(compiled.plan)
        return FlowRun(self, compiled.flow_id, flow.name, compiled.names)

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

    def decode_result(self, type: str, result: str | None) -> Any:
        """A stored result as the handler's return annotation says, where the handler is known here."""
        value = None if result is None else codec.load(result)
        definition = self.registry.find(type)
        # No result (of a node that was skipped, say) is none of any type.
        return value if value is None or definition is None else definition.result(value)

    def encode(self, spec: CoreJobSpec[Any], node: str | None) -> Encoded:
        """A job's arguments as stored: bound, checked, converted, references taken out."""
        definition = self.registry.find(spec.type)
        if not spec.args and not spec.kwargs and (definition is None or not definition.required):
            return NO_ARGUMENTS
        where = f"job {spec.type!r}" if node is None else f"node {node!r}"
        arguments: Mapping[str, Any]
        found: list[Any] = []
        if definition is not None and not spec.args and definition.takes_as_they_are(spec.kwargs):
            arguments = spec.kwargs
        else:
            arguments, found = self._plain_arguments(spec, definition, where)
        try:
            text = codec.dump(arguments, limit=self.settings.max_payload)
        except codec.NotStorable as error:
            at = f", argument {error.path!r}" if error.path else ", arguments"
            kind = "" if node is None else f" (type {spec.type!r})"
            raise InvalidArguments(f"{where}{kind}{at}: {error.reason}") from None
        if not found:
            return Encoded(text, [], [])
        sources: list[Node[Any]] = []
        numbers: dict[Any, int] = {}
        bindings = []
        for path, source, into in found:
            if source not in numbers:
                numbers[source] = len(sources)
                sources.append(source)
            bindings.append((path, numbers[source], list(into)))
        return Encoded(text, sources, bindings)

    def _plain_arguments(
        self, spec: CoreJobSpec[Any], definition: Definition | None, where: str
    ) -> tuple[dict[str, Any], list[Any]]:
        if definition is None:
            if spec.args:
                raise InvalidArguments(f"{where}: a job dispatched by name takes its arguments by name, in a dict")
            given = spec.kwargs
        else:
            given = definition.bind(spec.args, spec.kwargs, where)
        arguments: dict[str, Any] = {}
        found: list[Any] = []
        for name, value in given.items():
            if contains(value):
                arguments[name] = take_out(value, [name], found)
            elif definition is None or definition.is_plain(name, value):
                arguments[name] = value
            else:
                arguments[name] = self._converted(definition, name, value, where)
        return arguments, found

    def _converted(self, definition: Definition, name: str, value: Any, where: str) -> Any:
        """An argument as its annotation says, and then as JSON has it.

        What pydantic would hide is refused: it writes NaN as null, and keys that are not text as text, two as one.
        """
        try:
            odd_keys = codec.probe({name: value})
        except codec.NotStorable as error:
            raise InvalidArguments(f"{where}, argument {(error.path or name)!r}: {error.reason}") from None
        checked = definition.validate(name, value, where)
        try:
            plain = definition.to_plain(name, checked)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidArguments(f"{where}, argument {name!r}: {error}") from None
        if odd_keys and definition.validate(name, plain, where) != checked:
            raise InvalidArguments(
                f"{where}, argument {name!r}: a key that is not text; JSON keys are text, so annotate what they are"
            )
        return plain

    def _wake(self, plan: Plan) -> None:
        self.notifier.wake(plan.queues(), scheduled=plan.scheduled())


@contextmanager
def _uncollected(nodes: int) -> Iterator[None]:
    """No garbage collection while a large flow is compiled: it would find all alive, in half of the whole time."""
    pause = nodes >= LARGE and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()
