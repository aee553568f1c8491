"""``flowrun check``: handlers, schedules and flows of a program, without a database."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from flowrun.app import Flowrun
from flowrun.cli.asking import AsJson
from flowrun.cli.doctor import show_findings
from flowrun.cli.loading import load
from flowrun.client.checks import check_flow, check_handlers, check_schedules
from flowrun.client.findings import Finding, note, wrong
from flowrun.client.specs import Flow


def check(
    app: Annotated[str, Parameter(name="--app", help="MODULE:APP, the app or a function that makes it.")],
    *,
    as_json: AsJson = False,
) -> int:
    """Check handlers, schedules and flows without a database: annotations, arguments, cycles, references.

    Flows are those that stand in a module, and those that functions make which say that they return a Flow and that
    can be called without arguments, or with the app alone: in MODULE, and where its handlers are defined. Exit code 1
    when something is wrong.
    """
    found = load(app)
    findings = [
        *check_handlers(found.registry),
        *check_schedules(found.client, found.schedules.declared.values()),
        *_check_flows(found, app.partition(":")[0]),
    ]
    return show_findings(findings, as_json=as_json)


def _check_flows(app: Flowrun, name: str) -> Iterator[Finding]:
    names = dict.fromkeys([name, *(definition.function.__module__ for definition in app.registry)])
    for module in (sys.modules[name] for name in names if name in sys.modules):
        for attribute, value in list(vars(module).items()):
            where = f"{module.__name__}.{attribute}"
            if isinstance(value, Flow):
                yield from check_flow(app.client, value, where)
            elif _makes_flows(value, module):
                yield from _check_factory(app, value, where)


def _makes_flows(value: Any, module: ModuleType) -> bool:
    """Whether it is a function of this module that says it returns a flow."""
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    try:
        returned = get_type_hints(value).get("return")
    except (NameError, TypeError):
        returned = None
    return inspect.isclass(returned) and issubclass(returned, Flow)


def _check_factory(app: Flowrun, factory: Callable[..., Any], where: str) -> Iterator[Finding]:
    hints = get_type_hints(factory)
    given: dict[str, Any] = {}
    for parameter in inspect.signature(factory).parameters.values():
        if hints.get(parameter.name) is Flowrun and parameter.kind is not parameter.POSITIONAL_ONLY:
            given[parameter.name] = app
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            yield note("flow", f"{where}: not checked, it needs an argument: {parameter.name}", "give it a default")
            return
    try:
        made = factory(**given)
        flow = asyncio.run(made) if inspect.iscoroutine(made) else made
    except Exception as error:  # noqa: BLE001 - the user's code
        yield wrong("flow", f"{where}: making it failed: {type(error).__name__}: {error}", "it is called as it is here")
        return
    if isinstance(flow, Flow):
        yield from check_flow(app.client, flow, where)
    else:
        yield wrong("flow", f"{where}: it says that it returns a flow, and returned {flow!r}", "return the flow")
