"""What is wrong with a database, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowrun.client import findings
from flowrun.client.findings import Finding
from flowrun.client.listing import worker_status
from flowrun.errors import DatabaseError, DatabaseUnavailable, MigrationNeeded, SchemaTooNew
from flowrun.store import doctor, migrate, queues, schedules
from flowrun.store.pool import Connection, Database, PoolerInTheWay

if TYPE_CHECKING:
    from flowrun.config import Settings

LOOKED = 100_000
"""Jobs that are looked at for whether anybody serves them."""
PROBE = 2.0
"""Seconds a notification may take."""


async def examine(dsn: str, settings: Settings) -> list[Finding]:
    """All that is found, good and bad. Raises DatabaseUnavailable.

    What cannot be looked at (rights that lack, a lock in the way) is a finding, too.
    """
    pooler = settings.pooler
    found: list[Finding] = []
    try:
        return found + [one async for one in _examined(_database(dsn, settings, pooler=pooler), settings)]
    except PoolerInTheWay as error:
        advice = "Flowrun(dsn, pooler=True, listen_dsn=...), and --pooler here"
        found.append(findings.wrong("pooler", f"a pooler at this DSN refuses settings ({error})", advice))
    return found + [one async for one in _examined(_database(dsn, settings, pooler=True), settings)]


def _database(dsn: str, settings: Settings, *, pooler: bool) -> Database:
    return Database(dsn, schema=settings.schema, pooler=pooler, pool_size=1)


async def _examined(database: Database, settings: Settings) -> AsyncIterator[Finding]:
    async with doctor.opened(database) as connection:
        checks = _Checks(database, settings, connection)
        for check in (checks.server, checks.pooler, checks.listening, checks.schema, checks.horizon, checks.locks):
            for one in await _tried(check):
                yield one
        if checks.fits:
            for check in (checks.rights, checks.tables, checks.work, checks.trouble, checks.queues, checks.schedules):
                for one in await _tried(check):
                    yield one


async def _tried(check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        return await check()
    except DatabaseUnavailable:
        raise
    except DatabaseError as error:
        name = getattr(check, "__name__", "check")
        return [findings.wrong(name, f"it could not be looked at: {error}", "see the other findings; then ask again")]


class _Checks:
    """One connection, and what is learned on the way."""

    def __init__(self, database: Database, settings: Settings, connection: Connection) -> None:
        self._database = database
        self._settings = settings
        self._connection = connection
        self._server: dict[str, Any] = {}
        self.fits = True
        """The schema is this flowrun's, as far as is known."""
        self.pooled = False

    async def _look(self, name: str, *args: object) -> list[dict[str, Any]]:
        return await doctor.look(self._connection, self._database, name, *args)

    async def server(self) -> list[Finding]:
        self._server = (await self._look("doctor_server"))[0]
        return findings.of_server(self._server, await doctor.skew(self._connection))

    async def pooler(self) -> list[Finding]:
        self.pooled = await doctor.is_pooled(self._connection)
        found = findings.of_settings(await self._look("doctor_settings"), pooled=self.pooled)
        if self.pooled and not self._settings.pooler:
            said = "a pooler answers at this DSN, and the app is not told so"
            advice = "in transaction mode: Flowrun(dsn, pooler=True, listen_dsn=...), and --pooler here"
            return [*found, findings.wrong("pooler", said, advice)]
        if self._settings.pooler and not self.pooled:
            return [*found, findings.note("pooler", "no pooler answers here: pooler=True costs speed for nothing")]
        return [*found, findings.ok("pooler", "through a pooler, as set" if self.pooled else "none in between")]

    async def listening(self) -> list[Finding]:
        dsn = self._settings.listen_dsn
        if self._settings.pooler and dsn is None:
            advice = "listen_dsn= (here --listen-dsn) with a DSN that leads to the server itself"
            said = "without a listen_dsn workers hear no notifications: they poll"
            return [findings.note("listening", said, advice)]
        async with doctor.opened(self._database, dsn) as listener:
            if await doctor.hears(listener, self._connection, PROBE):
                return [findings.ok("listening", "notifications arrive")]
        advice = "a pooler in transaction mode drops LISTEN: pooler=True, and a listen_dsn to the server itself"
        return [findings.wrong("listening", f"a notification did not arrive within {PROBE:g} s", advice)]

    async def schema(self) -> list[Finding]:
        try:
            await doctor.guarded(migrate.verify(self._connection, self._settings.schema))
        except (MigrationNeeded, SchemaTooNew) as error:
            self.fits = False
            return [findings.wrong("schema", str(error), "flowrun migrate, or another --schema or --dsn")]
        newest = migrate.migrations()[-1].number
        return [findings.ok("schema", f"{self._settings.schema!r} is at {newest}, as this flowrun needs")]

    async def horizon(self) -> list[Finding]:
        rows = await self._look("doctor_horizon", findings.LONG)
        return findings.of_horizon(rows, sees_all=bool(self._server.get("sees_all")))

    async def locks(self) -> list[Finding]:
        return findings.of_locks(await self._look("doctor_locks", self._settings.schema))

    async def rights(self) -> list[Finding]:
        rows = await self._look("doctor_rights", self._settings.schema)
        return findings.of_rights(rows, self._server["role"], superuser=self._server["superuser"])

    async def tables(self) -> list[Finding]:
        return findings.of_tables(await self._look("doctor_tables", self._settings.schema))

    async def work(self) -> list[Finding]:
        unserved = await self._look("doctor_unserved", LOOKED)
        return findings.of_work((await self._look("doctor_work"))[0], unserved, looked=LOOKED)

    async def trouble(self) -> list[Finding]:
        workers = [worker_status(row) for row in await self._look("list_workers")]
        return findings.of_trouble((worker.name, one.kind, str(one)) for worker in workers for one in worker.trouble)

    async def queues(self) -> list[Finding]:
        rows = await doctor.guarded(queues.standing(self._connection, self._database.sql))
        settings = [(one.setting, one.ready, one.running) for one in rows]
        types = await doctor.guarded(queues.types(self._connection, self._database.sql))
        return [
            *findings.of_queues(
                (of.name, bool(of.paused), of.concurrency, ready, running) for of, ready, running in settings
            ),
            *findings.of_types((name, ready) for name, paused, ready, _ in types if paused),
        ]

    async def schedules(self) -> list[Finding]:
        return findings.of_schedules(
            await doctor.guarded(schedules.standing(self._connection, self._database.sql, None))
        )
