"""Connections: the pool that everyone shares, single connections with settings of their own, and their errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import asyncpg.pgproto.pgproto

from flowrun.errors import DatabaseError, DatabaseUnavailable, FlowrunError, MigrationNeeded
from flowrun.store.statement import Statements

Connection: TypeAlias = Any
"""An asyncpg connection, of the pool or not. asyncpg ships no types of its own."""

Id: Callable[[bytes], UUID] = asyncpg.pgproto.pgproto.UUID
"""Makes a UUID as the driver has them: it writes these without conversion, which a large flow notices."""

T = TypeVar("T")

LOST = (
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

UNSENDABLE = (asyncpg.exceptions._base.DataError,)
"""The values do not fit the parameters: the driver did not send them (an InterfaceError, yet no lost connection)."""

REFUSED = (asyncpg.PostgresError, ValueError, TypeError)
"""The statement cannot be done with these values; sending it again changes nothing."""

PINNED: Mapping[str, str] = {
    # The statistics of queue tables are always wrong by the time they are used: these leave only the index.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "on",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Settings of the connections that claim and settle."""


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

    async def open(self) -> None:
        """Connect; DatabaseUnavailable says where to, without the password."""
        with translated(self.dsn):
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=self._size,
                reset=_no_reset,
                timeout=self._timeout,
                server_settings=self._settings({}),
                **self._cache(),
            )

    async def close(self) -> None:
        """Give the connections back to the server."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 5.0)
            except LOST:
                pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool."""
        pool = self._pool
        if pool is None:
            raise FlowrunError("the database is not open: use `async with app:` (or app.worker(), app.lifespan)")
        with translated(self.dsn):
            async with pool.acquire(timeout=30.0) as connection:
                yield connection

    async def connect(self, settings: Mapping[str, str] | None = None, *, dsn: str | None = None) -> Any:
        """A connection of one's own, with server settings."""
        return await asyncpg.connect(
            dsn or self.dsn,
            timeout=cast(Any, self._timeout),
            server_settings=self._settings(settings or {}),
            **self._cache(),
        )

    async def fetch(self, name: str, *args: Any) -> list[Any]:
        """The rows of a statement by name, on the pool."""
        async with self.acquire() as connection:
            rows: list[Any] = await connection.fetch(self.sql[name], *args)
            return rows

    async def repeat(self, verb: Callable[[Connection], Awaitable[T]], *, safe: bool = True) -> T:
        """Run ``verb`` on a connection of the pool.

        Again where nothing was done, and, if ``safe`` (doing it twice is harmless), where that is not known.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.acquire() as connection:
                    return await verb(connection)
            except REPEATABLE:
                if attempt >= 10:
                    raise
            except DatabaseUnavailable:
                if not safe or attempt >= 3:
                    raise
            await asyncio.sleep(random.uniform(0.005, 0.05) * attempt)  # noqa: S311 - jitter

    def _settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        # A transaction pooler refuses every start-up setting but this one.
        named = {"application_name": "flowrun"}
        if self.pooler:
            return named
        # Never wait for a lock for ever: somebody's ALTER TABLE must show as an error, not as silence. And what is
        # done in two statements (lock, then look) relies on each having its own snapshot.
        return (
            named
            | {
                "lock_timeout": "30s",
                "idle_in_transaction_session_timeout": "60s",
                "default_transaction_isolation": "read committed",
            }
            | dict(settings)
        )

    def _cache(self) -> dict[str, Any]:
        return {"statement_cache_size": 0} if self.pooler else {}


class translated:  # noqa: N801 - reads as a statement: `with translated(dsn):`
    """Errors of the driver as flowrun's own, with a message for the person who reads it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (FlowrunError, *REPEATABLE)):
            return
        if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
            raise MigrationNeeded(f"flowrun's tables are missing ({error}); run `flowrun migrate`") from error
        if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
            raise DatabaseUnavailable(f"PostgreSQL at {where(self._dsn)} refused: {error}") from error
        if isinstance(error, LOST):
            reason = str(error) or type(error).__name__
            raise DatabaseUnavailable(f"cannot reach PostgreSQL at {where(self._dsn)}: {reason}") from error
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise DatabaseError(f"PostgreSQL at {where(self._dsn)} forbids it: {error}") from error


def where(dsn: str) -> str:
    """Host and database of a DSN, for messages: never the password."""
    try:
        parts = urlsplit(dsn)
        host = parts.hostname or "the local socket"
        port = f":{parts.port}" if parts.port else ""
        return f"{host}{port}/{parts.path.lstrip('/') or parts.username or ''}"
    except ValueError:
        return "the given DSN"


async def _no_reset(connection: Any) -> None:
    """asyncpg would send a reset at every release; flowrun leaves nothing behind on a pooled connection."""
