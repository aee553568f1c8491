"""Where the files are, what the server is told, and what is said when something is wrong with them."""

import asyncio
import shutil
import time
from pathlib import Path

import asyncpg
import pytest

from flowrun.embedded.deadline import Deadline
from flowrun.errors import EmbeddedPostgresError

from .processes import eventually, gone, kill, parent, postmaster, query


def postgres_sockets(dsn):
    return Path(query(dsn, "SHOW unix_socket_directories"))


@pytest.mark.parametrize("name", ["x" * 90, "with space, comma & 'quote' 50%", "größe"])
def test_paths_a_socket_cannot_have(room, open_postgres, name):
    directory = room / name / "pg"
    directory.parent.mkdir(mode=0o711)
    postgres = open_postgres(directory)
    dsn = postgres.start()
    assert query(dsn, "SHOW data_directory") == str(directory / "data")
    sockets = postgres_sockets(dsn)
    assert sockets.parent == room.parent
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert open_postgres(directory).start() == dsn


def test_the_short_socket_directory_goes_with_the_server(room, open_postgres):
    directory = room / ("x" * 90)
    with open_postgres(directory) as postgres:
        sockets = postgres_sockets(postgres.dsn)
        assert sockets.is_dir()
        keeper = parent(postmaster(directory))
    gone(keeper)
    assert not sockets.exists()
    with open_postgres(directory) as postgres:
        assert postgres_sockets(postgres.dsn) == sockets


def test_settings(directory, open_postgres):
    with open_postgres(directory, settings={"work_mem": "7MB", "app.shard": "3"}) as postgres:
        assert query(postgres.dsn, "SHOW work_mem") == "7MB"
        assert query(postgres.dsn, "SHOW app.shard") == "3"
        assert query(postgres.dsn, "SHOW fsync") == "on"
        assert query(postgres.dsn, "SHOW max_connections") == "200"
        assert query(postgres.dsn, "SHOW listen_addresses") == ""
        if "pg_stat_statements" in query(postgres.dsn, "SHOW shared_preload_libraries"):
            query(postgres.dsn, "CREATE EXTENSION pg_stat_statements")
            assert query(postgres.dsn, "SELECT count(*) FROM pg_stat_statements") >= 0


def test_tcp_when_a_port_is_given(directory, open_postgres, unused_tcp_port):
    with open_postgres(directory, port=unused_tcp_port) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
        assert query(f"postgresql://flowrun@127.0.0.1:{unused_tcp_port}/postgres", "SELECT 1") == 1


def test_files_are_closed_to_others(directory, open_postgres):
    with open_postgres(directory):
        assert directory.stat().st_mode & 0o066 == 0
        assert (directory / "data").stat().st_mode & 0o077 == 0
        assert (directory / "server.log").stat().st_mode & 0o077 == 0


def test_a_database_of_another_version(directory, open_postgres):
    with open_postgres(directory):
        server = postmaster(directory)
    gone(server)
    version = directory / "data" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(EmbeddedPostgresError) as caught:
        open_postgres(directory).start()
    for part in ("made by PostgreSQL 9", "are PostgreSQL 1", "FLOWRUN_PG_BIN", "pg_dumpall", str(directory)):
        assert part in str(caught.value)


def test_a_data_directory_that_is_none(directory, open_postgres):
    (directory / "data").mkdir(parents=True)
    directory.chmod(0o711)
    (directory / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(EmbeddedPostgresError, match="holds no PostgreSQL database"):
        open_postgres(directory).start()
    assert (directory / "data" / "thesis.tex").exists()


def test_somebody_elses_data_directory(directory, open_postgres):
    directory.mkdir(mode=0o711)
    (directory / "PG_VERSION").write_text("18\n")
    with pytest.raises(EmbeddedPostgresError, match="is itself a data directory"):
        open_postgres(directory).start()


def test_a_directory_that_is_a_file(directory, open_postgres):
    directory.write_text("")
    with pytest.raises(EmbeddedPostgresError, match=str(directory)):
        open_postgres(directory).start()


def test_a_server_that_does_not_start_says_why(directory, open_postgres):
    with pytest.raises(EmbeddedPostgresError, match="max_connections"):
        open_postgres(directory, settings={"max_connections": "many"}).start()
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1


def test_a_start_ends_with_its_deadline(directory, open_postgres):
    with open_postgres(directory):
        server = postmaster(directory)
    gone(server)
    began = time.monotonic()
    with pytest.raises(EmbeddedPostgresError):
        open_postgres(directory).start(timeout=0.02)
    assert time.monotonic() - began < 2
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1


def test_a_deadline_says_what_for():
    with pytest.raises(EmbeddedPostgresError, match=r"waited 0 s for Godot"):
        Deadline(0).pause("Godot")


def test_a_directory_deleted_under_an_open_handle(directory, open_postgres):
    postgres = open_postgres(directory)
    postgres.start()
    server = postmaster(directory)
    while directory.exists():
        # The server removes its own files too when it sees that its lock file is gone.
        shutil.rmtree(directory, ignore_errors=True)
    assert query(postgres.start(), "SELECT count(*) FROM pg_class WHERE relname = 't'") == 0
    assert postmaster(directory) != server
    gone(server)


def test_connections_are_ended_by_the_shutdown(directory, open_postgres):
    """A forgotten connection (here: one left open by a user who holds no handle) does not keep the server."""

    async def run():
        postgres = open_postgres(directory)
        connection = await asyncpg.connect(await asyncio.to_thread(postgres.start))
        server = postmaster(directory)
        await asyncio.to_thread(postgres.close)
        await asyncio.to_thread(gone, server)
        connection.terminate()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["line\nend", "tab\tinside", "\x7f"])
def test_a_name_that_its_own_files_cannot_hold(room, open_postgres, name):
    with pytest.raises(EmbeddedPostgresError, match="control character"):
        open_postgres(room / name).start()
    assert not (room / name).exists()


@pytest.mark.parametrize("name", ["next\x85line", "para\u2029graph"])
def test_a_name_that_looks_like_two_lines_to_python(room, open_postgres, name):
    with open_postgres(room / name) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1


def test_it_is_known_when_the_server_died(directory, open_postgres):
    postgres = open_postgres(directory)
    assert not postgres.alive
    postgres.start()
    assert postgres.alive
    server = postmaster(directory)
    kill(server)
    eventually(lambda: not postgres.alive, "the keeper to end with its server")
    postgres.start()
    assert postgres.alive
    postgres.close()
    assert not postgres.alive
