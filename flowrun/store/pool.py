"""Connections: the pool that everyone shares, single connections with settings of their own, and their errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

import asyncpg
import asyncpg.pgproto.pgproto

from flowrun.dsn import Address, Keepalive, read
from flowrun.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    FlowrunError,
    MigrationNeeded,
    PoolExhausted,
)
from flowrun.store.address import said, understood, where
from flowrun.store.link import Link, Silent, hurried, keep_alive
from flowrun.store.moments import read_any
from flowrun.store.statement import Statements

Connection: TypeAlias = Any
"""An asyncpg connection, of the pool or not. asyncpg ships no types of its own."""

Id: Callable[[bytes], UUID] = asyncpg.pgproto.pgproto.UUID
"""Makes a UUID as the driver has them: it writes these without conversion, which a large flow notices."""

T = TypeVar("T")

FORBIDDEN = (
    asyncpg.exceptions.InsufficientPrivilegeError,
    asyncpg.exceptions.UndefinedTableError,
    asyncpg.exceptions.UndefinedColumnError,
    asyncpg.exceptions.UndefinedFunctionError,
    asyncpg.exceptions.InvalidSchemaNameError,
)
"""It has nothing to do with what was sent: somebody took a right, or a table, away, and may give it back."""

LOST = (
    *FORBIDDEN,
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised when a server shuts down under a statement; not a PostgresError
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.InsufficientResourcesError,  # too many connections, a full disk: it passes
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a failover under way
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
)
"""The connection is gone, or of no use: what was sent may or may not have been done."""

REPEATABLE = (
    asyncpg.exceptions.SerializationError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.QueryCanceledError,  # a statement_timeout of the role
)
"""Nothing was done; the whole transaction can be sent again."""

SLOW = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.QueryCanceledError)
"""Those that come after a long wait already."""

ADVICE: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (
        asyncpg.exceptions.ReadOnlySQLTransactionError,
        "it is a standby, or read-only by a setting: point the DSN at the primary "
        "(several hosts and target_session_attrs=primary find it), or look for default_transaction_read_only",
    ),
    (
        asyncpg.exceptions.TooManyConnectionsError,
        "it has no connection free: a worker takes 4 besides its pool_size; raise max_connections, lower pool_size, or "
        "put a pooler in between",
    ),
    (
        asyncpg.exceptions.LockNotAvailableError,
        "somebody holds a lock on flowrun's tables (an ALTER TABLE, a LOCK, a dump being restored): `flowrun doctor` "
        "names who",
    ),
    (
        asyncpg.exceptions.QueryCanceledError,
        "a statement_timeout counts where flowrun cannot set its own (through a pooler): raise it for this role; or "
        "somebody cancelled the statement",
    ),
    (
        asyncpg.InsufficientPrivilegeError,
        "`flowrun roles` prints what each role needs, `flowrun doctor` what this one lacks",
    ),
    (
        asyncpg.exceptions.ProtocolViolationError,
        "if this is a pooler in transaction mode: Flowrun(dsn, pooler=True, listen_dsn=...)",
    ),
)
"""What to do about an error, by its kind."""

UNSENDABLE = (asyncpg.exceptions._base.DataError,)
"""The values do not fit the parameters: the driver did not send them (an InterfaceError, yet no lost connection)."""

UNFIT = (*UNSENDABLE, asyncpg.exceptions.DataError)
"""Among the values is one of another type than the parameter's, or a text with what no text of PostgreSQL can hold."""

SESSION: dict[str, str] = {
    # Never wait for a lock for ever: somebody's ALTER TABLE must show as an error, not as silence.
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    # What is done in two statements (lock, then look) relies on each having its own snapshot.
    "default_transaction_isolation": "read committed",
    # What was set for the role is meant for people: a large flow takes longer than a web page may, and a connection
    # that listens is idle by nature.
    "statement_timeout": "600s",
    "idle_session_timeout": "0",
}
"""Settings of every session, whatever the role's own are."""

WAIT = 30.0
"""Seconds that one waits for a connection of a pool that is in use."""
CANCELLING = 3.0
"""Seconds that a statement which was cut by a cancellation has to end before its connection is given up."""

PINNED: Mapping[str, str] = {
    # The statistics of queue tables are always wrong by the time they are used: these leave only the index.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "on",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # Nothing but flowrun's own statements runs here, one after the other: whoever idles in the middle is gone, and the
    # locks it leaves behind keep others from settling.
    "idle_in_transaction_session_timeout": "15s",
}
"""Settings of the connections that claim and settle."""


CLEAN = (
    "select pg_advisory_unlock_all(); close all; unlisten *; reset role; reset session authorization; reset all; "
    "discard temp; discard sequences"
)
"""Undoes what somebody else's code did to a session. Not `discard all`: the driver knows its prepared statements."""


class PoolerInTheWay(DatabaseUnavailable):
    """A pooler refuses the settings that a session of flowrun's begins with."""


class Forbidden(DatabaseError):
    """The role may not do it: somebody who waits for it would wait in vain."""


ELSEWHERE = (
    "this app is open in another event loop (of another thread, or an earlier asyncio.run), and works in one loop "
    "at a time: run this there (asyncio.run_coroutine_threadsafe), close the app there first, or make a Flowrun of its "
    "own for this loop"
)
"""Said where connections would fail with an error about futures."""


class Database:
    """A DSN, a schema, and a pool while it is open."""

    def __init__(
        self, dsn: str, *, schema: str, pooler: bool = False, pool_size: int = 10, connect_timeout: float = 10.0
    ) -> None:
        self.dsn = dsn
        self.sql = Statements(schema)
        self.schema = schema
        self.pooler = pooler
        self._size = pool_size
        self._timeout = connect_timeout
        self._pool: asyncpg.Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.writes: bool | None = None
        """Whether its role writes the tables itself; None: not known yet. See granted.py."""

    async def open(self) -> None:
        """Connect; DatabaseUnavailable says where to, without the password."""
        self.writes = None
        address = read(self.dsn)
        with translated(self.dsn, self.schema), understood():
            pool = await asyncpg.create_pool(
                address.url,
                # Where a floor is to be kept, asyncpg prints a traceback each time it cannot be.
                min_size=0,
                max_size=self._size,
                connection_class=Link,
                init=partial(_prepare, keepalive=address.keepalive),
                reset=_no_reset,
                timeout=address.connect_timeout or self._timeout,
                server_settings=self._settings({}, address),
                **self._cache(),
            )
            try:
                await pool.release(await pool.acquire())
            except BaseException:
                pool.terminate()
                raise
            self._pool = pool
        self._loop = asyncio.get_running_loop()

    def here(self) -> None:
        """Raise ConfigurationError in another event loop than the one it was opened in, where it cannot work."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(ELSEWHERE)

    async def close(self) -> None:
        """Give the connections back to the server."""
        pool, self._pool, self._loop = self._pool, None, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 5.0)
            except LOST:
                pool.terminate()

    def forget(self) -> None:
        """Give up the pool of an event loop that ended without closing it: its connections cannot be used any more."""
        self._pool, self._loop = None, None

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool, for whatever it is: what its statements raise is the driver's, as it raises it.

        Raises PoolExhausted when none comes free in time.

            async with app.client.database.acquire() as connection:
                await connection.execute("insert into orders (id) values ($1)", 42)
        """
        pool = self._pool
        if pool is None:
            raise FlowrunError("the database is not open: use `async with app:` (or app.worker(), app.lifespan)")
        self.here()
        with translated(self.dsn, self.schema):
            try:
                # Where one is free there is nothing to wait for, and no timer to set.
                connection = await _unless_swept(lambda: pool.acquire(timeout=None if pool.get_idle_size() else WAIT))
            except TimeoutError:
                if pool.get_size() == self._size and not pool.get_idle_size():
                    raise self._exhausted() from None
                raise
        try:
            yield connection
        except (Silent, asyncpg.exceptions.ReadOnlySQLTransactionError):
            # Those that lie idle may be as dead, or the primary is another by now: none of them is used again.
            await pool.expire_connections()
            raise
        finally:
            # What a cancellation has cut is cancelled on the server first; a dead link never answers.
            with contextlib.suppress(*LOST):
                await _unless_swept(lambda: pool.release(connection, timeout=CANCELLING))

    @asynccontextmanager
    async def own(self) -> AsyncIterator[Connection]:
        """The same for flowrun's own statements: their errors become flowrun's own."""
        with translated(self.dsn, self.schema):
            async with self.acquire() as connection:
                yield connection

    async def clean(self, connection: Connection) -> None:
        """Undo what a user's code did to a session: settings, role, locks, temporary tables. To be called when its
        transaction has ended; where that cannot be done the connection is not used again.

        Behind a pooler the session is not ours: what was set there without `local` was set for whoever comes next.
        """
        if self.pooler:
            return
        try:
            await connection.execute(CLEAN)
        except (asyncpg.PostgresError, *LOST):
            with contextlib.suppress(*LOST):
                connection.terminate()

    async def connect(
        self, settings: Mapping[str, str] | None = None, *, dsn: str | None = None, patience: float | None = None
    ) -> Any:
        """A connection of one's own, with server settings; ``patience``: seconds that an answer may take."""
        connection: Any = None
        address = read(dsn or self.dsn)
        with understood():
            connection = await asyncpg.connect(
                address.url,
                timeout=cast(Any, address.connect_timeout or self._timeout),
                server_settings=self._settings(settings or {}, address),
                connection_class=Link,
                **self._cache(),
            )
        await _prepare(connection, address.keepalive)
        connection.patience = patience
        return connection

    async def fetch(self, name: str, *args: Any) -> list[Any]:
        """The rows of a statement by name, on the pool."""

        async def verb(connection: Connection) -> list[Any]:
            rows: list[Any] = await connection.fetch(self.sql[name], *args)
            return rows

        return await self.repeat(verb)

    async def repeat(
        self, verb: Callable[[Connection], Awaitable[T]], *, safe: bool = True, patience: float | None = None
    ) -> T:
        """Run ``verb`` on a connection of the pool, each of whose answers may take ``patience`` seconds.

        Again where nothing was done, and, if ``safe`` (doing it twice is harmless), where that is not known. Raises
        ConfigurationError for values that PostgreSQL cannot take.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.own() as connection:
                    if patience is None:
                        return await verb(connection)
                    with hurried(connection, patience):
                        return await verb(connection)
            except REPEATABLE as error:
                if attempt >= (2 if isinstance(error, SLOW) else 10):
                    raise given_up(error, self.dsn) from error
            except UNFIT as error:
                raise ConfigurationError(f"PostgreSQL cannot take what was given: {said(error)}") from None
            except PoolExhausted:
                raise
            except DatabaseUnavailable:
                if not safe or attempt >= 3:
                    raise
            await asyncio.sleep(random.uniform(0.005, 0.05) * attempt)  # noqa: S311 - jitter

    def _exhausted(self) -> PoolExhausted:
        return PoolExhausted(
            f"all {self._size} connections to PostgreSQL at {where(self.dsn)} are in use, and none came free within "
            f"{WAIT:.0f} s: dispatch less at once, hold transactions shorter, or raise pool_size"
        )

    def _settings(self, settings: Mapping[str, str], address: Address) -> dict[str, str]:
        # A transaction pooler refuses every start-up setting but this one.
        named = {"application_name": address.application_name or "flowrun"}
        if self.pooler:
            return named
        return named | SESSION | dict(settings)

    def _cache(self) -> dict[str, Any]:
        return {"statement_cache_size": 0} if self.pooler else {}


async def _unless_swept(call: Callable[[], Awaitable[Any]]) -> Any:
    """``call``, again if a task of the driver's own was cancelled, by a handler that cancelled all there were."""
    while True:
        try:
            return await call()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise


class translated:  # noqa: N801 - reads as a statement: `with translated(dsn):`
    """Errors of the driver as flowrun's own, with a message for the person who reads it.

    Only around flowrun's own statements: what a user's raise says nothing about flowrun's tables.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (FlowrunError, *REPEATABLE, *UNSENDABLE)):
            return
        if is_missing(error, self._schema):
            raise MigrationNeeded(f"flowrun's tables are missing ({said(error)}); run `flowrun migrate`") from error
        if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
            raise DatabaseUnavailable(f"PostgreSQL at {where(self._dsn)} refused: {said(error)}") from error
        if isinstance(error, FORBIDDEN):
            verb = "forbids it" if isinstance(error, asyncpg.InsufficientPrivilegeError) else "cannot do it"
            raise Forbidden(f"PostgreSQL at {where(self._dsn)} {verb}: {reason(error)}") from error
        if isinstance(error, LOST):
            pooler = isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error)
            kind = PoolerInTheWay if pooler else DatabaseUnavailable
            raise kind(f"cannot reach PostgreSQL at {where(self._dsn)}: {reason(error)}") from error


def is_missing(error: BaseException, schema: str) -> bool:
    """Whether flowrun's own tables are missing, or one of them: not something that a trigger on them looks for."""
    state, text = sqlstate(error), str(error)
    return (state == "42P01" and f"{schema}." in text) or (state == "3F000" and schema in text)


def sqlstate(error: BaseException) -> str | None:
    """What the server calls an error, whichever driver brought it."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def given_up(error: BaseException, dsn: str) -> DatabaseError:
    """What was tried again until there was no point in it, for the person who reads it."""
    return DatabaseError(f"PostgreSQL at {where(dsn)} did not let it be done: {reason(error)}")


def reason(error: BaseException) -> str:
    """What went wrong and what to do about it, for logs and errors. Never what was in a row."""
    advice = next((f"; {what}" for kinds, what in ADVICE if isinstance(error, kinds)), "")
    return said(error) + advice


def level(error: BaseException) -> int:
    """How loudly to tell that something is sent again: what comes after a long wait has somebody in its way."""
    return logging.WARNING if isinstance(error, SLOW) else logging.INFO


async def _prepare(connection: Any, keepalive: Keepalive) -> None:
    """What every connection has."""
    await keep_alive(connection, keepalive)
    await read_any(connection)


async def _no_reset(connection: Any) -> None:
    """asyncpg would send a reset at every release; flowrun leaves nothing behind on a pooled connection."""
