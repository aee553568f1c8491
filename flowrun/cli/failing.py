"""``flowrun failed``: the dead letter."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from flowrun.app import Flowrun
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
    parse_arguments,
    parse_id,
    parse_moment,
    show_rows,
)
from flowrun.cli.exits import OK, UsageError
from flowrun.cli.many import DryRun, show_ids


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Failures:
    """Which ones."""

    type: Annotated[str | None, Parameter(help="Only jobs of this type.")] = None
    queue: Annotated[str | None, Parameter(help="Only jobs of this queue.")] = None
    tag: Annotated[str | None, Parameter(help="Only jobs with this tag.")] = None
    error: Annotated[str | None, Parameter(help="Only this type of error; its last part is enough.")] = None
    flow: Annotated[str | None, Parameter(help="Only jobs of the flow with this id.")] = None
    since: Annotated[str | None, Parameter(help="Only those that failed at this time or later.")] = None
    until: Annotated[str | None, Parameter(help="Only those that failed before this time.")] = None

    def given(self) -> dict[str, Any]:
        """Those that are given, as ``app.failed`` takes them."""
        words = {
            "type": self.type,
            "queue": self.queue,
            "tag": self.tag,
            "error": self.error,
            "flow": None if self.flow is None else parse_id(self.flow),
            "since": parse_moment("--since", self.since),
            "until": parse_moment("--until", self.until),
        }
        return {name: value for name, value in words.items() if value is not None}


ALL = Failures()


def failed(
    action: Literal["list", "retry", "discard"] = "list",
    id: str | None = None,
    *,
    filters: Failures = ALL,
    every: Annotated[bool, Parameter(name="--all", help="All there are, without a filter.")] = False,
    args: str | None = None,
    drop: Annotated[list[str] | None, Parameter(negative=())] = None,
    limit: int = 20,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    actor: Actor = None,
    reason: Reason = None,
    dsn: Dsn = None,
    app: App = None,
    schema: Schema = SCHEMA,
) -> int:
    """List the jobs that failed for good, run them again, or take them out of the list.

    Parameters
    ----------
    action
        list, retry or discard.
    id
        Of one job; else the filters say which.
    args
        JSON object: arguments to replace in those that run again; checked where --app knows their handler.
    drop
        The name of an argument to take out of those that run again; several times for several.
    limit
        List at most so many.
    """
    words = filters.given()
    if action == "list":
        if id is not None:
            raise UsageError(f"flowrun show {id} shows one job")
        _list(dsn, schema, words, limit, app, as_json=as_json)
        return OK
    if id is None and not words and not every:
        raise UsageError(f"flowrun failed {action} needs the id of a job, a filter, or --all")
    if action == "discard" and (args is not None or drop):
        raise UsageError("--args are for retry, and so is --drop")
    by: dict[str, Any] = {"actor": actor_or_me(actor), "reason": reason}
    given: dict[str, Any] = {"args": parse_arguments("--args", args), "drop": drop or ()}

    async def question(app: Flowrun) -> Any:
        if id is not None:
            known = parse_id(id)
            await app.failed.get(known)
            if not dry_run and action == "retry":
                await app.failed.retry(known, **given, **by)
            elif not dry_run:
                await app.failed.discard(known, **by)
            return [known]
        return await _many(app, action, words, given, dry_run, by)

    show_ids(ask(dsn, schema, question, app), "job", as_json=as_json, dry_run=dry_run)
    return OK


def _many(
    app: Flowrun, action: str, words: dict[str, Any], given: dict[str, Any], dry_run: bool, by: dict[str, Any]
) -> Awaitable[Any]:
    if action == "retry":
        return app.failed.retry_all(**words, **given, dry_run=dry_run, **by)
    return app.failed.discard_all(**words, every=not words, dry_run=dry_run, **by)


def _list(dsn: str | None, schema: str, words: dict[str, Any], limit: int, app: str | None, *, as_json: bool) -> None:
    rows = ask(dsn, schema, lambda app: app.failed.list(**words, limit=limit), app)
    columns = {
        "id": lambda row: row.id, "type": lambda row: row.type, "node": lambda row: row.name,
        "queue": lambda row: row.queue, "attempts": lambda row: row.attempt, "failed": lambda row: row.failed_at,
        "error": lambda row: f"{(row.error_type or '').rpartition('.')[2]}: {row.message}",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, nothing="no job has failed for good")
