"""What can be said of a program without a database: its handlers, its schedules, the flows it makes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from flowrun import importable
from flowrun.client.findings import Finding, note, ok, wrong
from flowrun.client.specs import Flow
from flowrun.core.states import Kind
from flowrun.errors import FlowrunError
from flowrun.registry import Definition, Registry
from flowrun.shapes import Shape

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.client.schedules import Declared


def check_handlers(registry: Registry) -> Iterator[Finding]:
    """Each handler: whether its annotations can be read and converted, and whether its process would find it."""
    for definition in registry:
        problems = [*_annotations(definition), *_address(definition)]
        yield from problems
        if not problems:
            kind = "process" if definition.address is not None else "thread" if definition.threaded else "async"
            yield ok("handler", f"{definition.type} ({kind}, queue {definition.options.get('queue', 'default')!r})")
    if not len(registry):
        yield note("handler", "there are none: this program only dispatches")


def check_schedules(client: Client, declared: Iterable[Declared]) -> Iterator[Finding]:
    """Each schedule of ``@app.cron``: whether its job could be dispatched."""
    for one in declared:
        try:
            client.plan_jobs([one.handler.job()])
        except FlowrunError as error:
            yield wrong("schedule", f"{one.key}: {error}", "a scheduled handler is called without arguments")
        else:
            yield ok("schedule", f"{one.key}: {one.cron} ({one.timezone})")


def check_flow(client: Client, flow: Flow, where: str) -> Iterator[Finding]:
    """One flow, as it would be dispatched: names, cycles, references, arguments; and who runs its jobs."""
    try:
        rows = client.plan_flow(flow).plan.jobs
    except FlowrunError as error:
        yield wrong("flow", f"{where}: {error}", "it would be refused like this when it is dispatched")
        return
    handled = [row for row in rows if row.kind == Kind.HANDLER]
    foreign = sorted({row.type for row in handled if client.registry.find(row.type) is None})
    if foreign:
        told = ", ".join(map(repr, foreign))
        yield note(
            "flow", f"{where}: no handler of type {told} here", "another program must have them, or it is a typo"
        )
    yield ok("flow", f"{where}: {flow.name!r}, {len(handled)} job(s)")


def _annotations(definition: Definition) -> Iterator[Finding]:
    empty = inspect.Parameter.empty
    annotated = {
        name: parameter.annotation
        for name, parameter in definition.signature.parameters.items()
        if parameter.annotation is not empty
    }
    if definition.signature.return_annotation is not inspect.Signature.empty:
        annotated["return"] = definition.signature.return_annotation
    for name, annotation in annotated.items():
        if name not in definition.hints:
            what = "what it returns" if name == "return" else f"parameter {name!r}"
            found = f"{definition.type}: the annotation of {what}, {annotation!r}, cannot be resolved"
            yield wrong("handler", found, f"import it where the handler is defined: {definition.place}")
    try:
        _ = definition.decode
        if "return" in definition.hints:
            Shape(definition.hints["return"])
    except Exception as error:  # noqa: BLE001 - whatever pydantic says of a user's type
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = f"{definition.type}: its annotations cannot be converted: {first}"
        yield wrong("handler", found, f"use types that pydantic knows: {definition.place}")


def _address(definition: Definition) -> Iterator[Finding]:
    if definition.address is None:
        return
    try:
        found = importable.find(definition.address, importable.program())
    except (ImportError, LookupError) as error:
        yield wrong("handler", f"{definition.type}: its process would not find it: {error}", definition.place)
        return
    if found is not definition.function and getattr(found, "type", None) != definition.type:
        told = f"{definition.type}: {definition.address.module}:{definition.address.name} is something else by now"
        yield wrong("handler", told, f"give the function a name of its own: {definition.place}")
