"""An address, and what the driver and the server say about it, for the person who reads it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from urllib.parse import quote as percent

import asyncpg

from flowrun.dsn import read
from flowrun.errors import ConfigurationError
from flowrun.store.statement import quote

_ARGUMENT = re.compile(r"(.*query argument \$\d+): .*\((.*)\)", re.DOTALL)
"""Between them the driver quotes what was to be sent."""

_SETTING_REFUSED = (
    asyncpg.exceptions.UndefinedObjectError,
    asyncpg.exceptions.CantChangeRuntimeParamError,
    asyncpg.exceptions.InvalidParameterValueError,
)
"""What a server says at the start of a session about a setting that it does not have, or not so."""


async def with_database(dsn: str, name: str) -> str:
    """The address of the database ``name`` on the server of ``dsn``; it is created where there is none.

    Two programs may do so at the same moment.
    """
    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval("select true from pg_database where datname = $1", name):
            with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(f"create database {quote(name, 'a database')}")
    finally:
        await connection.close()
    return urlunsplit(urlsplit(dsn)._replace(path="/" + percent(name, safe="")))


@contextmanager
def understood() -> Iterator[None]:
    """A DSN that the driver stumbles over is refused. It is not repeated, nor what the driver says: it quotes it."""
    try:
        yield
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise ConfigurationError(f"the DSN cannot be used: {said(error)}") from None
    except asyncpg.InterfaceError:
        raise
    except _SETTING_REFUSED as error:
        raise ConfigurationError(
            f"PostgreSQL refuses a parameter of the DSN: {said(error)}; what neither libpq nor the driver knows is "
            "handed to the server as a setting"
        ) from None
    except (LookupError, ValueError, TypeError):
        raise ConfigurationError(
            "the DSN cannot be read (it is not repeated here): look at its hosts, ports and options, and write what is "
            "special in names and passwords as %40"
        ) from None


def said(error: BaseException) -> str:
    """What the server says, in one line, without its details: they quote whole rows, with what people put there."""
    first = str(error.args[0]) if isinstance(error, asyncpg.PostgresError) and error.args else str(error)
    if found := _ARGUMENT.match(first):
        return f"{found[1]} ({found[2]})"
    return first.partition("\n")[0] or type(error).__name__


def where(dsn: str) -> str:
    """Host and database of a DSN, for messages: never the password."""
    try:
        parts = urlsplit(dsn)
        if "@" in parts.path + parts.query + parts.fragment:
            # An unquoted / ? # in a password ends the host too early: the rest of it stands in what follows.
            return "the given DSN (has its password a / ? or #? write %2F %3F %23)"
        parts = urlsplit(read(dsn).url)
        given = dict(parse_qsl(parts.query))
        host = parts.hostname or given.get("host") or "the local socket"
        port = f":{parts.port or given['port']}" if parts.port or "port" in given else ""
        database = parts.path.lstrip("/") or given.get("dbname") or parts.username or ""
    except (ValueError, ConfigurationError):
        return "the given DSN"
    return f"{host}{port}/{database}"
