"""``flowrun roles``: SQL for roles that may do just what they have to."""

from __future__ import annotations

from flowrun.cli import terminal
from flowrun.cli.asking import SCHEMA, Schema
from flowrun.cli.exits import OK
from flowrun.store.roles import Roles, script

_DEFAULT = Roles()


def roles(
    *,
    owner: str = _DEFAULT.owner,
    worker: str = _DEFAULT.worker,
    dispatcher: str = _DEFAULT.dispatcher,
    reader: str = _DEFAULT.reader,
    schema: Schema = SCHEMA,
) -> int:
    """Print SQL that makes roles and grants them what they need. Needs no database, and changes nothing.

    flowrun roles --worker shop_worker | psql ...

    Parameters
    ----------
    owner
        Who migrates.
    worker
        Who runs jobs, waits for them and operates on them.
    dispatcher
        Who dispatches and no more: it sees no arguments and no results.
    reader
        Who looks at states, times and errors, and at no payload.
    """
    names = Roles(owner=owner, worker=worker, dispatcher=dispatcher, reader=reader)
    terminal.show(script(schema, names).rstrip())
    return OK
