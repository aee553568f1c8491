"""Connections that are not flowrun's own: what is written on them is committed, or rolled back, by whoever has them.

Libraries are recognised by the names of their types: none is imported unless an object of it is passed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import Any, TypeAlias, cast

import asyncpg

from flowrun.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, FlowrunError, MigrationNeeded
from flowrun.store.pool import Connection, is_missing, sqlstate

Shield: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Makes a block that a cancellation does not cut."""

ACCEPTED = (
    "an asyncpg connection, a SQLAlchemy AsyncSession or AsyncConnection (over asyncpg or psycopg), "
    "or a psycopg AsyncConnection"
)

_NESTED = ("savepoint flowrun_dispatch", "release savepoint flowrun_dispatch", "rollback to savepoint flowrun_dispatch")
_WHOLE = ("begin", "commit", "rollback")
_PARAMETER = re.compile(r"\$(\d+)")
_STATES = {
    "25P02": (DatabaseError, "the transaction passed as tx= is aborted by an earlier error; roll it back"),
    "25006": (DatabaseError, "the transaction passed as tx= is read-only"),
    "42501": (DatabaseError, "the role of the connection passed as tx= may not write flowrun's tables"),
}

_USELESS = {"InterfaceError", "OperationalError", "InternalClientError", "InvalidRequestError"}
"""What asyncpg, psycopg and SQLAlchemy raise about a connection, a transaction or a session, not about a statement."""


class Caller(ABC):
    """A connection, its transaction being somebody else's affair."""

    copies: Connection | None = None
    """The connection below, where rows can be copied in through it."""

    def __init__(self, shield: Shield) -> None:
        self._shield = shield

    @abstractmethod
    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        """The rows of a statement with ``$1`` parameters."""

    @abstractmethod
    async def in_transaction(self) -> bool:
        """Whether a statement sent now is part of a transaction that others end."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing of the block, and after an error the caller's transaction goes on as if it had not been.

        In SQL, because the libraries' own blocks differ: asyncpg's refuses a transaction begun by hand, psycopg's
        commits where the caller's has not begun yet, SQLAlchemy's has effects on the session.
        """
        nested = await self.in_transaction()
        begin, commit, rollback = _NESTED if nested else _WHOLE
        begun = False
        try:
            await self.fetch(begin)
            begun = True
            yield
        except BaseException:
            # A `begin` that was cut may have been done; rolling back to a savepoint that is none would abort it all.
            if begun or not nested:
                with self._shield(), suppress(Exception):
                    await self.fetch(rollback)
            raise
        with self._shield():
            await self.fetch(commit)


class AsyncpgCaller(Caller):
    """An asyncpg connection, of a pool or not; with ``copies`` one of flowrun's own."""

    def __init__(self, connection: Connection, shield: Shield, *, own: bool = False) -> None:
        super().__init__(shield)
        self._connection = connection
        self.copies = connection if own else None

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        """The rows of a statement with ``$1`` parameters."""
        if not args:
            await self._connection.execute(sql)
            return []
        return list(await self._connection.fetch(sql, *args))

    async def in_transaction(self) -> bool:
        """Whether a statement sent now is part of a transaction that others end."""
        return bool(self._connection.is_in_transaction())


class PsycopgCaller(Caller):
    """A psycopg AsyncConnection, whatever cursors and rows it makes by itself."""

    def __init__(self, connection: Any, shield: Shield) -> None:
        super().__init__(shield)
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        """The rows of a statement with ``$1`` parameters."""
        from psycopg import AsyncCursor
        from psycopg.rows import tuple_row

        async with cast(Any, AsyncCursor(self._connection, row_factory=tuple_row)) as cursor:
            await cursor.execute(_named(sql) if args else sql, _by_name(args) if args else None)
            return list(await cursor.fetchall()) if cursor.description else []

    async def in_transaction(self) -> bool:
        """Whether a statement sent now is part of a transaction that others end: without autocommit it begins one."""
        return not self._connection.autocommit or self._connection.info.transaction_status.name != "IDLE"


class SqlalchemyCaller(Caller):
    """A SQLAlchemy AsyncConnection that has begun; statements go through it, so that it knows its transaction."""

    def __init__(self, connection: Any, shield: Shield) -> None:
        super().__init__(shield)
        self._connection = connection
        self._dollars = connection.dialect.driver == "asyncpg"

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        """The rows of a statement with ``$1`` parameters."""
        if not args:
            result = await self._connection.exec_driver_sql(sql)
        elif self._dollars:
            result = await self._connection.exec_driver_sql(sql, args)
        else:
            result = await self._connection.exec_driver_sql(_named(sql), _by_name(args))
        return list(result.fetchall()) if result.returns_rows else []

    async def in_transaction(self) -> bool:
        """Whether a statement sent now is part of a transaction that others end: it begins one by itself."""
        return True


async def adapt(tx: object, shield: Shield) -> Caller:
    """The connection ``tx`` as flowrun uses it. Raises ConfigurationError when it is none of those accepted."""
    if isinstance(tx, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return AsyncpgCaller(tx, shield)
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(tx).__mro__}
    if ("psycopg", "AsyncConnection") in kinds:
        return PsycopgCaller(tx, shield)
    connection: Any = tx
    if kinds & {("sqlalchemy", "AsyncSession"), ("sqlalchemy", "async_scoped_session")}:
        # Not the driver's connection below it: that one is not in the session's transaction before its first statement.
        connection = await connection.connection()
    elif ("sqlalchemy", "AsyncConnection") not in kinds:
        kind = type(tx)
        raise ConfigurationError(f"tx= takes {ACCEPTED}; got {kind.__module__}.{kind.__qualname__}")
    if connection.dialect.driver not in {"asyncpg", "psycopg", "psycopg_async"}:
        raise ConfigurationError(f"tx= takes {ACCEPTED}; got SQLAlchemy over {connection.dialect.driver!r}")
    raw = await connection.get_raw_connection()
    if raw.dbapi_connection.autocommit:
        # No transaction of SQLAlchemy's, and none can be begun through it.
        return await adapt(raw.driver_connection, shield)
    return SqlalchemyCaller(connection, shield)


@contextmanager
def translated(schema: str) -> Iterator[None]:
    """Errors that mean ``tx=`` is of no use, as flowrun's own.

    What says that the caller's transaction should be repeated, or that PostgreSQL refuses the values, stays as the
    library raised it: whoever repeats it looks for that.
    """
    try:
        yield
    except FlowrunError:
        raise
    except Exception as error:
        own = _own(error, schema)
        if own is None:
            raise
        raise own from error


def _own(error: Exception, schema: str) -> FlowrunError | None:
    chain = list(_chain(error))
    state = next(filter(None, map(sqlstate, chain)), None)
    if any(is_missing(each, schema) for each in chain):
        says = "flowrun's tables are missing in the database of tx=; run `flowrun migrate`"
        return MigrationNeeded(f"{says} ({error})")
    if state in _STATES:
        kind, says = _STATES[state]
        first = str(error).partition("\n")[0]  # SQLAlchemy's quotes the statement and its parameters
        return kind(f"{says} ({first})")
    if state is not None:
        lost = state.startswith(("08", "57P0"))
        return DatabaseUnavailable(f"the connection passed as tx= was lost: {error}") if lost else None
    if any(isinstance(each, OSError) and not isinstance(each, TimeoutError) for each in chain):
        return DatabaseUnavailable(f"the connection passed as tx= was lost: {error}")
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    # A wrong value is an InterfaceError for asyncpg; anything else without a state is about the connection itself.
    if names & _USELESS and "DataError" not in names:
        return DatabaseError(f"the connection or session passed as tx= cannot be used: {error}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the driver's below it: SQLAlchemy has that as ``orig``."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


@cache
def _named(sql: str) -> str:
    """``$1`` as psycopg has it: ``%(p1)s``."""
    return _PARAMETER.sub(r"%(p\1)s", sql.replace("%", "%%"))


def _by_name(args: Sequence[Any]) -> dict[str, Any]:
    return {f"p{number}": value for number, value in enumerate(args, 1)}
