"""What running jobs leave behind beside their outcome: what their steps came to, and how far they are."""

from __future__ import annotations

from uuid import UUID

from flowrun.store.pool import Connection, Database


async def steps(database: Database, job_id: UUID) -> dict[str, str]:
    """The values of a job's steps, as JSON by name."""

    async def read(connection: Connection) -> dict[str, str]:
        return dict(await connection.fetch(database.sql["steps"], job_id))

    return await database.repeat(read)


async def remember_step(database: Database, job_id: UUID, name: str, value: str) -> str:
    """Keep the value (JSON) of a step, and return what is kept: an earlier one stays. Harmless when sent again."""

    async def write(connection: Connection) -> str:
        kept: str = await connection.fetchval(database.sql["remember_step"], job_id, name, value)
        return kept

    return await database.repeat(write)


async def report_progress(database: Database, job_id: UUID, fraction: float, message: str | None) -> None:
    """Say how far a job is."""

    async def write(connection: Connection) -> None:
        await connection.execute(database.sql["report_progress"], job_id, fraction, message)

    await database.repeat(write)
