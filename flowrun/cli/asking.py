"""What the commands that look and act have in common: a database, an id, and how the answer is shown."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from flowrun.app import Flowrun
from flowrun.cli import terminal
from flowrun.cli.database import opened
from flowrun.cli.drawing import STYLES
from flowrun.cli.exits import UsageError
from flowrun.cli.loading import load
from flowrun.client.runs import FlowRun, JobRun
from flowrun.config import Settings
from flowrun.errors import NotFound
from flowrun.store import migrate

T = TypeVar("T")

Dsn = Annotated[str | None, Parameter(help="The database; default: the embedded PostgreSQL.")]
App = Annotated[
    str | None,
    Parameter(name="--app", help="MODULE:APP: go through this app, with its codec, handlers, database and schema."),
]
Schema = Annotated[str, Parameter(help="The PostgreSQL schema that holds everything.")]
AsJson = Annotated[
    bool, Parameter(name="--json", help="Print JSON: one object, or one a line where there are several.")
]
Actor = Annotated[str | None, Parameter(help="Who does it, for the audit; default: you.")]
Reason = Annotated[str | None, Parameter(help="Why, for the audit.")]
SCHEMA = Settings().schema


def ask(dsn: str | None, schema: str, question: Callable[[Flowrun], Awaitable[T]], app: str | None = None) -> T:
    """The answer to ``question``, asked of the database; through ``app`` (MODULE:APP) with all that it has."""
    if app is not None:
        found = load(app)
        if dsn:
            found.use_dsn(dsn)
        return asyncio.run(_ask(found, question))
    with opened(dsn) as address:
        return asyncio.run(_ask(Flowrun(address, schema=schema), question))


async def _ask(app: Flowrun, question: Callable[[Flowrun], Awaitable[T]]) -> T:
    async with app:
        async with app.client.database.own() as connection:
            await migrate.verify(connection, app.settings.schema)
        return await question(app)


async def find(app: Flowrun, id: str, node: str | None = None) -> FlowRun | JobRun[Any]:
    """The flow or the job with that id; of a flow, the job of a node."""
    known = parse_id(id)
    try:
        flow = await app.get_flow(known)
    except NotFound:
        if node is not None:
            raise NotFound(f"no flow {known} is stored") from None
        try:
            return await app.get_job(known)
        except NotFound:
            raise NotFound(f"no flow or job {known} is stored") from None
    return flow if node is None else flow[node]


def _typed(text: str) -> str:
    """What was typed, not all of it."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def parse_id(text: str) -> UUID:
    """An id as typed."""
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(
            f"{_typed(text)} is not an id; an id looks like 01a20661-4f29-7643-a2d7-875b0f0776f1"
        ) from None


def parse_json(what: str, text: str) -> Any:
    """A value as typed."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{what} is not JSON ({error}); quote texts twice: '\"yes\"'") from None


def parse_arguments(what: str, text: str | None) -> dict[str, Any] | None:
    """Arguments by name, as typed."""
    if text is None:
        return None
    found = parse_json(what, text)
    if not isinstance(found, dict):
        raise UsageError(f"{what} is a JSON object, arguments by name: '{{\"order_id\": 1}}'")
    return found


def parse_moment(what: str, text: str | None) -> datetime | None:
    """A moment as typed; without a time zone, the local one."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{what} is a date and time as in 2026-11-23T08:00:00+01:00; got {_typed(text)}") from None


def shown(moment: datetime) -> str:
    """A moment in the local time; at the ends of time, where that is none, as it is stored."""
    with suppress(OverflowError):
        moment = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def actor_or_me(actor: str | None) -> str | None:
    """Who does it."""
    if actor is not None:
        return actor
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


def show_json(value: Any) -> None:
    """A line of JSON."""
    given = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    terminal.show(orjson.dumps(given, default=str).decode())


def show_rows(
    rows: Sequence[Any], columns: Mapping[str, Callable[[Any], object]], *, as_json: bool, nothing: str
) -> None:
    """A table, or a line of JSON for each row."""
    if as_json:
        for row in rows:
            show_json(row)
        return
    if not rows:
        terminal.say(nothing)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(read(row)) for read in columns.values()))
    terminal.console().print(table)


def _cell(value: object) -> Text:
    if value is None or value == "":
        return Text("-", "dim")
    if isinstance(value, datetime):
        return Text(shown(value))
    if isinstance(value, list | tuple):
        return Text(", ".join(map(str, value)))
    text = str(value).partition("\n")[0]
    return Text(text, STYLES[text][2] if text in STYLES else "")
