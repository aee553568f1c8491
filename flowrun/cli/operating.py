"""``flowrun cancel``, ``retry``, ``resolve``, ``skip``, ``signal``, ``dispatch``, ``queues``: what operators do."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.asking import (
    SCHEMA,
    Actor,
    App,
    AsJson,
    Dsn,
    Reason,
    Schema,
    actor_or_me,
    ask,
    find,
    parse_arguments,
    parse_json,
    show_json,
    show_rows,
)
from flowrun.cli.exits import FAILED, OK, UsageError
from flowrun.cli.loading import load
from flowrun.cli.many import ALL, DryRun, Filters, do_many
from flowrun.client.runs import FlowRun


def cancel(
    id: str | None = None,
    node: str | None = None,
    *,
    filters: Filters = ALL,
    compensate: Annotated[bool, Parameter(negative="--no-compensate")] = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """Cancel a flow, a job, or a node. Prints cancelled, requested (its handler is being interrupted) or too late.

    With filters instead of an id: all that pass them and have not ended; prints how many, with --dry-run which.

    Parameters
    ----------
    id
        Of a flow or a job.
    node
        The name of a node of the flow.
    compensate
        Let a flow's compensations run.
    """
    known = _one_or_many("cancel", id, filters, dry_run=dry_run)
    if known is None:
        by: dict[str, Any] = {"actor": actor_or_me(actor), "reason": reason}
        more: dict[str, Any] = by | ({"compensate": compensate} if filters.of_flows else {})
        return do_many(dsn, schema, "cancel", filters, as_json=as_json, dry_run=dry_run, **more)

    async def question(app: Flowrun) -> str:
        run = await find(app, known, node)
        if isinstance(run, FlowRun):
            return await run.cancel(compensate=compensate, actor=actor_or_me(actor), reason=reason)
        return await run.cancel(actor=actor_or_me(actor), reason=reason)

    answer = ask(dsn, schema, question)
    terminal.show(answer)
    return FAILED if answer == "too late" else OK


def retry(
    id: str | None = None,
    node: str | None = None,
    *,
    filters: Filters = ALL,
    args: str | None = None,
    drop: Annotated[list[str] | None, Parameter(negative=())] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """Run a flow's failed nodes again, or a job that failed. Prints how many jobs run again.

    With filters instead of an id: all that pass them and failed (--state cancelled: were cancelled); prints how many,
    with --dry-run which.

    Parameters
    ----------
    id
        Of a flow or a job.
    node
        The name of a node of the flow: only that one.
    args
        JSON object: arguments of the job to replace; checked where --app knows its handler.
    drop
        The name of an argument of the job to take out; several times for several.
    """
    given: dict[str, Any] = {"args": parse_arguments("--args", args), "drop": drop or ()}
    edited = args is not None or bool(drop)
    known = _one_or_many("retry", id, filters, dry_run=dry_run)
    if known is None:
        if filters.of_flows and edited:
            raise UsageError("--args are arguments of jobs, and so is what --drop names")
        by: dict[str, Any] = {"actor": actor_or_me(actor), "reason": reason}
        more = by if filters.of_flows else by | given
        return do_many(dsn, schema, "retry", filters, as_json=as_json, dry_run=dry_run, app=app, **more)

    async def question(app: Flowrun) -> int:
        run = await find(app, known, node)
        if isinstance(run, FlowRun):
            if edited:
                raise UsageError("--args are the arguments of one job, and so is what --drop names: name its node")
            return await run.retry(actor=actor_or_me(actor), reason=reason)
        await run.retry(**given, actor=actor_or_me(actor), reason=reason)
        return 1

    terminal.show(str(ask(dsn, schema, question, app)))
    return OK


def resolve(
    id: str,
    node: str | None = None,
    result: str = "null",
    *,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """Let a job count as succeeded, whatever its state.

    Parameters
    ----------
    id
        Of a flow (then name the node) or a job.
    node
        The name of a node of the flow.
    result
        JSON: its result.
    """
    value = parse_json("--result", result)

    async def question(app: Flowrun) -> None:
        await _one(await find(app, id, node)).resolve(value, actor=actor_or_me(actor), reason=reason)

    ask(dsn, schema, question, app)
    return OK


def skip(
    id: str,
    node: str | None = None,
    *,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """Let a job be skipped, whatever its state.

    Parameters
    ----------
    id
        Of a flow (then name the node) or a job.
    node
        The name of a node of the flow.
    """

    async def question(app: Flowrun) -> None:
        await _one(await find(app, id, node)).skip(actor=actor_or_me(actor), reason=reason)

    ask(dsn, schema, question)
    return OK


def signal(
    id: str,
    name: str,
    value: str = "null",
    *,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """Send a signal to a flow. Fails if one of that name has come already.

    Parameters
    ----------
    id
        Of the flow.
    name
        Of the signal.
    value
        JSON: what the gates that wait for it have as their result.
    """
    sent = parse_json("the value", value)

    async def question(app: Flowrun) -> bool:
        run = await find(app, id)
        if not isinstance(run, FlowRun):
            raise UsageError(f"{id} is a job; a signal is sent to a flow")
        return await run.signal(name, sent, actor=actor_or_me(actor), reason=reason)

    if ask(dsn, schema, question, app):
        return OK
    terminal.complain(f"the signal {name!r} has come already; the first one counts")
    return FAILED


def dispatch(
    app: Annotated[str, Parameter(name="--app", help="MODULE:APP, the app or a function that makes it.")],
    type: str,
    args: str = "{}",
    *,
    wait: bool = False,
    timeout: float | None = None,
    dsn: Dsn = None,
) -> int:
    """Dispatch one job of a type the app knows; prints its id, or with --wait its result as JSON.

    Parameters
    ----------
    type
        The job's type.
    args
        JSON object: arguments by name.
    wait
        Wait for the result.
    timeout
        Seconds to wait at most.
    """
    found = load(app)
    if dsn:
        found.use_dsn(dsn)
    given = parse_arguments("ARGS", args) or {}
    if found.registry.find(type) is None:
        known = ", ".join(sorted(definition.type for definition in found.registry)) or "none"
        raise UsageError(f"the app has no handler of type {type!r}; it has {known}")

    async def asked() -> Any:
        async with found:
            run = await found.job(type, given).dispatch()
            if not wait:
                return run.id
            terminal.say(f"job {run.id}")
            return await run.result(timeout=timeout)

    try:
        answer = asyncio.run(asked())
    except TimeoutError as error:
        terminal.complain(str(error))
        return FAILED
    if wait:
        show_json(answer)
    else:
        terminal.show(str(answer))
    return OK


def queues(
    action: Literal["list", "pause", "resume"] = "list",
    name: str | None = None,
    *,
    timeout: float | None = None,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """List the queues, or pause or resume one. After a pause no job of it begins; what runs goes on.

    Parameters
    ----------
    action
        list, pause or resume.
    name
        The queue to pause or resume.
    timeout
        Seconds in which the workers have to answer a pause; default: their lease.
    """
    if action == "list":
        rows = ask(dsn, schema, lambda app: app.queues.list())
        columns = {
            "queue": lambda row: row.name, "ready": lambda row: row.ready, "running": lambda row: row.running,
            "at once": lambda row: row.concurrency,
            "rate": lambda row: None if row.rate is None else f"{row.rate[0]} in {row.rate[1]:g} s",
            "paused": lambda row: "paused" if row.paused else None, "workers": lambda row: row.workers,
        }  # fmt: skip
        show_rows(rows, columns, as_json=as_json, nothing="no queue is known")
        return OK
    if name is None:
        raise UsageError(f"flowrun queues {action} needs the name of a queue")
    if action == "pause":
        return _pause(dsn, schema, name, timeout)
    if not ask(dsn, schema, lambda app: app.queues.resume(name)):
        terminal.say(f"queue {name!r} was not paused")
    return OK


def _pause(dsn: str | None, schema: str, name: str, timeout: float | None) -> int:
    pause = ask(dsn, schema, lambda app: app.queues.pause(name, timeout=timeout))
    if not pause:
        terminal.say(f"queue {name!r} was paused already")
    if pause.running:
        terminal.say(f"{pause.running} of its jobs have begun already and go on")
    if pause.unheard:
        terminal.complain(f"it is paused, but these workers have not answered yet: {', '.join(pause.unheard)}")
    return FAILED if pause.unheard else OK


def _one_or_many(verb: str, id: str | None, filters: Filters, *, dry_run: bool) -> str | None:
    """The id that was given; None: filters were. Raises UsageError for both, or neither."""
    if id is not None and (filters.any or dry_run):
        raise UsageError(f"flowrun {verb} takes an id, or filters (and --dry-run with them)")
    if id is None and not filters.any:
        raise UsageError(f"flowrun {verb} needs an id, or filters: --type, --queue, --state, --tag, --flow, --name ...")
    return id


def _one(run: Any) -> Any:
    if isinstance(run, FlowRun):
        raise UsageError(f"{run.id} is a flow; name the node")
    return run
