"""Only errors of flowrun's own statements are interpreted: what somebody else's raise says nothing about flowrun's tables."""

from __future__ import annotations

import asyncpg
import pytest

from flowrun import Flowrun, Job, JobFailed, MigrationNeeded


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("select * from orders", asyncpg.UndefinedTableError),
        ("select * from nowhere.orders", asyncpg.UndefinedTableError),
        ("create table nowhere.orders ()", asyncpg.InvalidSchemaNameError),
        ("select missing_function()", asyncpg.UndefinedFunctionError),
        ("select 1/0", asyncpg.DivisionByZeroError),
        ("do $$ begin raise insufficient_privilege; end $$", asyncpg.InsufficientPrivilegeError),
        ("do $$ begin raise sqlstate '53200'; end $$", asyncpg.OutOfMemoryError),
        ("do $$ begin raise sqlstate '57P01'; end $$", asyncpg.exceptions.AdminShutdownError),
        ("do $$ begin raise sqlstate '28000'; end $$", asyncpg.InvalidAuthorizationSpecificationError),
    ],
)
async def test_a_user_s_own_statement_raises_what_the_driver_says(dsn: str, statement: str, error: type) -> None:
    async with Flowrun(dsn) as app, app.client.database.acquire() as connection:
        with pytest.raises(error):
            await connection.execute(statement)


async def test_outside_of_a_block_too(dsn: str) -> None:
    async with Flowrun(dsn) as app:
        with pytest.raises(asyncpg.UndefinedTableError, match='"orders" does not exist'):
            async with app.client.database.acquire() as connection:
                await connection.execute("select * from orders")
        with pytest.raises(TimeoutError, match="theirs"):
            async with app.client.database.acquire():
                raise TimeoutError("theirs")


async def test_a_handler_s_own_error_is_kept_as_it_is(dsn: str) -> None:
    app = Flowrun(dsn)

    @app.handler(attempts=1)
    async def read(job: Job) -> None:
        async with job.transaction() as tx:
            await tx.connection.execute("select * from orders")

    @app.handler(attempts=1)
    async def read_more() -> None:
        async with app.client.database.acquire() as connection:
            await connection.execute("select * from orders")

    async with app.worker():
        for handler in (read, read_more):
            with pytest.raises(JobFailed) as failed:
                await (await handler.dispatch()).result(timeout=20)
            assert failed.value.error_type == "asyncpg.exceptions.UndefinedTableError"
            assert failed.value.message == 'relation "orders" does not exist'


async def test_a_trigger_that_looks_for_a_table_of_its_own(dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute("""
        create function public.audit() returns trigger language plpgsql as $$
        begin insert into public.audit_log values (new.id); return new; end $$;
        create trigger audit before insert on flowrun.jobs for each row execute function public.audit()
    """)
    async with Flowrun(dsn) as app:
        with pytest.raises(Exception, match='relation "public.audit_log" does not exist') as error:
            await app.job("any").dispatch()
        assert not isinstance(error.value, MigrationNeeded)
        async with connection.transaction():
            with pytest.raises(asyncpg.UndefinedTableError, match='relation "public.audit_log" does not exist'):
                await app.job("any").dispatch(tx=connection)


async def test_tables_of_flowrun_that_are_missing_are_named_so(dsn: str, connection: asyncpg.Connection) -> None:
    async with Flowrun(dsn) as app, Flowrun(dsn, schema='It"s') as other:
        await connection.execute("alter table flowrun.jobs rename to gone")
        for tx in (None, connection):
            with pytest.raises(MigrationNeeded, match="run `flowrun migrate`"):
                await app.job("any").dispatch(tx=tx)
            with pytest.raises(MigrationNeeded, match="run `flowrun migrate`"):
                await other.job("any").dispatch(tx=tx)
