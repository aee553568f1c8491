"""The filters by which verbs choose many, the same words as in Python; ``flowrun delete`` and ``flowrun prune``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.asking import SCHEMA, AsJson, Dsn, Schema, ask, parse_id, parse_moment, show_json
from flowrun.cli.exits import OK, UsageError

DryRun = Annotated[bool, Parameter(help="Change nothing: only show which these would be.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which ones."""

    state: Annotated[str | None, Parameter(help="Only those in this state.")] = None
    type: Annotated[str | None, Parameter(help="Only jobs of this type.")] = None
    queue: Annotated[str | None, Parameter(help="Only jobs of this queue.")] = None
    tag: Annotated[str | None, Parameter(help="Only those with this tag.")] = None
    flow: Annotated[str | None, Parameter(help="Only jobs of the flow with this id.")] = None
    name: Annotated[str | None, Parameter(help="Only flows of this name: flows, not jobs.")] = None
    flows: Annotated[bool, Parameter(help="Flows, not jobs.")] = False
    since: Annotated[str | None, Parameter(help="Only those dispatched at this time or later.")] = None
    until: Annotated[str | None, Parameter(help="Only those dispatched before this time.")] = None

    @property
    def any(self) -> bool:
        """Whether one is given."""
        return any(getattr(self, one.name) not in (None, False) for one in fields(self))

    @property
    def of_flows(self) -> bool:
        """Whether flows are meant."""
        return self.flows or self.name is not None

    def given(self) -> dict[str, Any]:
        """Those that are given, as the verbs in Python take them. Raises UsageError where they exclude each other."""
        words = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name != "flows" and getattr(self, one.name) is not None
        }
        unfit = {"type", "queue", "flow"} & words.keys()
        if self.of_flows and unfit:
            raise UsageError(f"--{min(unfit)} is a filter of jobs; --name and --flows are of flows")
        for name in ("since", "until"):
            if name in words:
                words[name] = parse_moment(f"--{name}", words[name])
        if "flow" in words:
            words["flow"] = parse_id(words["flow"])
        return words


ALL = Filters()


def do_many(
    dsn: str | None,
    schema: str,
    verb: str,
    filters: Filters,
    *,
    as_json: bool,
    dry_run: bool,
    app: str | None = None,
    **more: Any,
) -> int:
    """Do ``verb`` to all that pass the filters; show their ids, or how many they were."""
    words = filters.given()

    def question(app: Flowrun) -> Awaitable[Sequence[UUID]]:
        place: Any = app.flows if filters.of_flows else app.jobs
        asked: Callable[..., Awaitable[Sequence[UUID]]] = getattr(place, verb)
        for name in sorted(words.keys() - signature(asked).parameters.keys()):
            raise UsageError(f"flowrun {verb} of {'flows' if filters.of_flows else 'jobs'} has no filter --{name}")
        return asked(**words, **more, dry_run=dry_run)

    ids = ask(dsn, schema, question, app)
    show_ids(ids, "flow" if filters.of_flows else "job", as_json=as_json, dry_run=dry_run)
    return OK


def show_ids(ids: Sequence[UUID], what: str, *, as_json: bool, dry_run: bool) -> None:
    """Ids, one a line, where that was asked for; else how many."""
    if as_json or dry_run:
        for id in ids:
            if as_json:
                show_json({"id": id})
            else:
                terminal.show(str(id))
        terminal.say(f"{len(ids)} {what}{'' if len(ids) == 1 else 's'}")
    else:
        terminal.show(str(len(ids)))


def delete(
    *,
    filters: Filters = ALL,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """Remove jobs, or flows, that have ended and pass the filters. Prints how many; with --dry-run, which.

    A flow is removed as a whole. What has not ended is to be cancelled first.
    """
    if filters.flow is not None:
        raise UsageError("a flow is removed as a whole: flowrun delete --name NAME, or --flows with other filters")
    return do_many(dsn, schema, "delete", filters, as_json=as_json, dry_run=dry_run)


def prune(
    *,
    filters: Filters = ALL,
    older_than: float | None = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    dsn: Dsn = None,
    schema: Schema = SCHEMA,
) -> int:
    """Remove what has ended and is kept no longer. Workers do so by themselves; prints how many jobs and flows.

    Parameters
    ----------
    older_than
        Seconds: remove what ended so long ago, whatever its retention.
    """
    words = filters.given()
    if filters.flow is not None or filters.flows:
        raise UsageError("flowrun prune takes --name for flows; --flow and --flows are for other commands")
    pruned = ask(dsn, schema, lambda app: app.prune(**words, older_than=older_than, dry_run=dry_run))
    if as_json:
        show_json(pruned)
    else:
        terminal.show(f"{pruned.jobs} jobs, {pruned.flows} flows")
    return OK
