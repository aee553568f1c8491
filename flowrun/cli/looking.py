"""``flowrun flows``, ``show``, ``jobs``, ``gates``, ``workers``, ``queues``, ``explain``: what there is, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.asking import (
    SCHEMA,
    App,
    AsJson,
    Dsn,
    Schema,
    ask,
    find,
    parse_id,
    parse_moment,
    show_json,
    show_rows,
    shown,
)
from flowrun.cli.drawing import picture, stored_lines
from flowrun.cli.exits import OK, UsageError
from flowrun.client.runs import FlowRun
from flowrun.client.statuses import Attempt, FlowStatus, JobStatus
from flowrun.core.states import FlowState, JobState
from flowrun.store import reads


def flows(
    *,
    state: str | None = None,
    name: str | None = None,
    tag: str | None = None,
    since: str | None = None,
    until: str | None = None,
    before: str | None = None,
    limit: int = 20,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """List flows, the newest first.

    Parameters
    ----------
    state
        running, succeeded, failed or cancelled.
    name
        Only flows of this name.
    tag
        Only flows with this tag.
    since
        Only those dispatched at this time or later.
    until
        Only those dispatched before this time.
    before
        Only those older than the flow with this id: the next page.
    limit
        At most so many.
    """
    _check_state(state, get_args(FlowState))
    rows = ask(
        dsn,
        schema,
        lambda app: app.flows.list(
            state=state,  # type: ignore[arg-type]
            name=name,
            tag=tag,
            since=parse_moment("--since", since),
            until=parse_moment("--until", until),
            before=None if before is None else parse_id(before),
            limit=limit,
        ),
    )
    columns = {
        "id": lambda row: row.id, "flow": lambda row: row.name, "state": lambda row: row.detail or row.state,
        "dispatched": lambda row: row.created_at, "ended": lambda row: row.finished_at, "tags": lambda row: row.tags,
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="no such flow")
    return OK


def jobs(
    *,
    state: str | None = None,
    type: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    flow: str | None = None,
    since: str | None = None,
    until: str | None = None,
    before: str | None = None,
    limit: int = 20,
    as_json: AsJson = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """List jobs, the newest first.

    Parameters
    ----------
    state
        waiting, scheduled, ready, running, succeeded, failed, cancelled or skipped.
    type
        Only jobs of this type.
    queue
        Only jobs of this queue.
    tag
        Only jobs with this tag.
    flow
        Only jobs of the flow with this id.
    since
        Only those dispatched at this time or later.
    until
        Only those dispatched before this time.
    before
        Only those older than the job with this id: the next page.
    limit
        At most so many.
    """
    _check_state(state, get_args(JobState))
    rows = ask(
        dsn,
        schema,
        lambda app: app.jobs.list(
            state=state,  # type: ignore[arg-type]
            type=type,
            queue=queue,
            tag=tag,
            flow=None if flow is None else parse_id(flow),
            since=parse_moment("--since", since),
            until=parse_moment("--until", until),
            before=None if before is None else parse_id(before),
            limit=limit,
        ),
        app,
    )
    columns = {
        "id": lambda row: row.id, "type": lambda row: row.type, "node": lambda row: row.name,
        "queue": lambda row: row.queue, "state": lambda row: row.state, "attempts": lambda row: row.attempt or None,
        "dispatched": lambda row: row.created_at, "error": lambda row: row.error,
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="no such job")
    return OK


def show(id: str, *, as_json: AsJson = False, dsn: Dsn = None, app: App = None, schema: Schema = SCHEMA) -> int:
    """Show a flow as a tree with states, attempts and times, or a job with its attempts.

    Parameters
    ----------
    id
        Of a flow or a job.
    """

    async def question(app: Flowrun) -> tuple[Any, Any]:
        run = await find(app, id)
        if isinstance(run, FlowRun):
            return await run.status(), await reads.flow_waits(app.client.database, run.id)
        return await run.status(), await run.attempts()

    status, more = ask(dsn, schema, question, app)
    if isinstance(status, FlowStatus):
        if as_json:
            show_json({**_fields(status), "nodes": {name: _fields(job) for name, job in status.nodes.items()}})
        else:
            terminal.console().print(picture(stored_lines(status, more), status, datetime.now(UTC)))
    elif as_json:
        show_json({**_fields(status), "attempts": [_fields(attempt) for attempt in more]})
    else:
        _show_job(status, more)
    return OK


def gates(
    *, limit: int = 100, as_json: AsJson = False, dsn: Dsn = None, app: App = None, schema: Schema = SCHEMA
) -> int:
    """List what waits for a signal, the oldest first; answer with: flowrun signal FLOW SIGNAL JSON.

    Parameters
    ----------
    limit
        At most so many.
    """
    rows = ask(dsn, schema, lambda app: app.gates.list(limit=limit), app)
    columns = {
        "flow id": lambda row: row.flow_id, "flow": lambda row: row.flow, "node": lambda row: row.node,
        "signal": lambda row: row.signal, "answers": lambda row: row.answers, "since": lambda row: row.opened_at,
        "until": lambda row: row.due_at,
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="nothing waits for a signal")
    return OK


def workers(*, as_json: AsJson = False, dsn: Dsn = None, schema: Schema = SCHEMA) -> int:
    """List the workers that live."""
    rows = ask(dsn, schema, lambda app: app.workers.list())
    columns = {
        "worker": lambda row: row.name, "queues": lambda row: row.queues, "types": lambda row: len(row.types),
        "jobs": lambda row: f"{row.jobs}/{row.concurrency}", "since": lambda row: row.started_at,
        "trouble": lambda row: row.trouble,
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="no worker lives")
    return OK


def explain(
    id: str,
    node: str | None = None,
    *,
    as_json: AsJson = False,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """Say why a flow has not ended, or why a job or a node is not running.

    Parameters
    ----------
    id
        Of a flow or a job.
    node
        The name of a node of the flow.
    """

    async def question(app: Flowrun) -> Any:
        return await (await find(app, id, node)).explain()

    found = ask(dsn, schema, question, app)
    if as_json:
        show_json(found)
    else:
        terminal.show(str(found))
    return OK


def _show_job(job: JobStatus, attempts: Sequence[Attempt]) -> None:
    facts = {
        "type": job.type, "node": job.name, "flow": job.flow_id, "queue": job.queue, "state": job.state,
        "attempts": job.attempt or None, "dispatched": job.created_at, "due": job.run_at, "started": job.started_at,
        "tags": ", ".join(job.tags) or None, "key": job.key, "schedule": job.schedule, "tick": job.scheduled_for,
        "limit": _limit(job), "sequence": job.sequence, "fair key": job.fair_key,
        "ended": job.finished_at, "worker": job.worker, "error": job.error,
        "progress": None if job.progress is None else f"{job.progress:.0%} {job.progress_message or ''}",
    }  # fmt: skip
    terminal.show(f"job {job.id}")
    for name, value in facts.items():
        if value is not None:
            terminal.show(f"  {name:<10} {shown(value) if isinstance(value, datetime) else value}")
    for attempt in attempts:
        terminal.show(f"attempt {attempt.attempt} on {attempt.worker}: {attempt.error_type}: {attempt.message}")
        for line in (attempt.traceback or "").rstrip().splitlines():
            terminal.show(f"  {line}")


def _limit(job: JobStatus) -> str | None:
    if job.limit is None:
        return None
    return f"{job.limit} at once {f'with {job.limit_key}' if job.limit_key is not None else 'of its type'}"


def _fields(status: Any) -> dict[str, Any]:
    return {name: getattr(status, name) for name in status.__slots__}


def _check_state(state: str | None, allowed: Sequence[str]) -> None:
    if state is not None and state not in allowed:
        raise UsageError(f"--state is one of {', '.join(allowed)}; got {state!r}")
