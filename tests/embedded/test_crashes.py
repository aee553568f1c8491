"""Whatever is killed, no server is orphaned, nothing committed is lost, and the next start works."""

import asyncio
import subprocess
import time

import asyncpg
import pytest

from .processes import eventually, gone, kill, lives, parent, postmaster, query


@pytest.fixture
def filled(directory, holder):
    """A holder in another process, with a committed row."""
    user = holder(directory)
    query(user.line(), "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    return user


def recovered(directory, open_postgres):
    postgres = open_postgres(directory)
    assert query(postgres.start(), "SELECT n FROM t") == 7
    query(postgres.dsn, "INSERT INTO t VALUES (8)")


def test_keeper_killed(directory, filled, open_postgres):
    server = postmaster(directory)
    kill(parent(server))
    gone(server)
    assert "database system is shut down" in (directory / "server.log").read_text()
    recovered(directory, open_postgres)


def test_keeper_killed_and_started_at_once(directory, filled, open_postgres):
    server = postmaster(directory)
    kill(parent(server))
    recovered(directory, open_postgres)
    assert not lives(server)


def test_postmaster_killed(directory, filled, open_postgres):
    server = postmaster(directory)
    keeper = parent(server)
    kill(server)
    recovered(directory, open_postgres)
    gone(keeper)


def test_postmaster_killed_under_a_long_query(directory, filled, open_postgres):
    """The busy backend goes on for a while, and no server may be started beside it."""
    busy = "SELECT count(*) FROM generate_series(1, 3000000) a WHERE md5(a::text) < '0'"

    async def work(dsn):
        connection = await asyncpg.connect(dsn)
        running = asyncio.ensure_future(connection.fetchval(busy))
        await asyncio.sleep(0.1)
        server = postmaster(directory)
        await asyncio.to_thread(kill, server)
        try:
            await asyncio.to_thread(recovered, directory, open_postgres)
        finally:
            await asyncio.gather(running, return_exceptions=True)
            connection.terminate()

    asyncio.run(work(open_postgres(directory).start()))


def test_start_revives_the_server_of_an_open_handle(directory, open_postgres):
    postgres = open_postgres(directory)
    dsn = postgres.start()
    query(dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    kill(postmaster(directory))
    with pytest.raises((OSError, asyncpg.PostgresError)):
        query(dsn, "SELECT 1")
    assert postgres.start() == dsn
    assert query(dsn, "SELECT n FROM t") == 7
    server = postmaster(directory)
    postgres.close()
    gone(server)


def test_everything_killed(directory, filled, open_postgres):
    server = postmaster(directory)
    keeper = parent(server)
    filled.kill()
    for pid in (keeper, server):
        if lives(pid):
            kill(pid)
    recovered(directory, open_postgres)


def test_a_process_number_that_is_another_programs_now(directory, filled, open_postgres):
    server = postmaster(directory)
    kill(server)
    with subprocess.Popen(["sleep", "60"]) as innocent:
        file = directory / "data" / "postmaster.pid"
        for stale in (file, *file.parent.glob(".s.PGSQL.*.lock")):
            stale.write_text(stale.read_text().replace(str(server), str(innocent.pid), 1))
        recovered(directory, open_postgres)
        assert innocent.poll() is None
        innocent.kill()


def test_killed_in_the_middle_of_making_the_database(directory, open_postgres, holder):
    user = holder(directory)
    eventually(lambda: list(directory.glob("data.unfinished-*/base")), "initdb to be at work")
    user.kill()
    assert not (directory / "data").exists()
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
        assert not list(directory.glob("data.unfinished-*"))


def test_killed_while_the_server_starts(directory, open_postgres, holder):
    with open_postgres(directory):
        first = postmaster(directory)
    gone(first)
    for delay in (0.05, 0.1, 0.15, 0.2, 0.3):
        user = holder(directory)
        time.sleep(delay)
        user.kill()
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
        server = postmaster(directory)
    gone(server)
