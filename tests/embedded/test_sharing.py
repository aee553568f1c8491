"""One server per directory, for as long as anybody holds a handle."""

import os
import signal

import pytest

from flowrun.errors import EmbeddedPostgresError

from .processes import eventually, gone, kill, lives, parent, postmaster, query


def test_data_outlives_the_server(directory, open_postgres):
    first = open_postgres(directory)
    query(first.start(), "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    server = postmaster(directory)
    first.close()
    gone(server)
    assert first.dsn is None

    with open_postgres(directory) as again:
        assert query(again.dsn, "SELECT n FROM t") == 7
        assert postmaster(directory) != server


def test_the_server_is_shut_down_not_killed(directory, open_postgres):
    with open_postgres(directory):
        server = postmaster(directory)
    gone(server)
    log = (directory / "server.log").read_text()
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log
    assert not (directory / "data" / "postmaster.pid").exists()


def test_start_again_is_the_same_server(directory, open_postgres):
    postgres = open_postgres(directory)
    dsn = postgres.start()
    server = postmaster(directory)
    assert postgres.start() == dsn == postgres.dsn
    assert postmaster(directory) == server
    postgres.close()
    postgres.close()
    gone(server)


def test_handles_of_one_process_count_one_by_one(directory, open_postgres):
    first, second = open_postgres(directory), open_postgres(directory)
    assert first.start() == second.start()
    first.close()
    assert query(second.dsn, "SELECT 1") == 1
    server = postmaster(directory)
    second.close()
    gone(server)


def test_two_processes_share_and_the_last_one_ends_it(directory, open_postgres, holder):
    other = holder(directory)
    dsn = other.line()
    mine = open_postgres(directory)
    assert mine.start() == dsn
    server = postmaster(directory)
    other.leave()
    assert query(dsn, "SELECT 1") == 1
    mine.close()
    gone(server)


def test_a_killed_holder_leaves_no_server_and_whole_data(directory, open_postgres, holder):
    victims = [holder(directory), holder(directory)]
    dsn = [victim.line() for victim in victims][0]
    query(dsn, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
    server = postmaster(directory)
    keeper = parent(server)
    victims[0].kill()
    assert query(dsn, "SELECT n FROM t") == 7
    victims[1].kill()
    gone(server)
    gone(keeper)
    assert "database system is shut down" in (directory / "server.log").read_text()
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT n FROM t") == 7


def test_eight_at_once_in_an_empty_directory(directory, holder):
    holders = [holder(directory) for _ in range(8)]
    assert len({each.line() for each in holders}) == 1
    assert (directory / "server.log").read_text().count("ready to accept connections") == 1
    server = postmaster(directory)
    for each in holders:
        each.kill()
    gone(server)


def test_leaving_and_coming_again_at_once(directory, open_postgres):
    for round in range(5):
        with open_postgres(directory) as postgres:
            assert query(postgres.dsn, f"SELECT {round}") == round


def test_the_handle_is_no_parent(directory, open_postgres):
    with open_postgres(directory):
        keeper = parent(postmaster(directory))
        assert parent(keeper) != os.getpid()
        with pytest.raises(ChildProcessError):
            os.waitpid(keeper, os.WNOHANG)


def test_a_program_started_meanwhile_holds_nothing(directory, holder):
    user = holder(directory, "exec")
    user.line(), user.line()
    program = int(user.line())
    server = postmaster(directory)
    try:
        user.kill()
        gone(server)
        assert lives(program)
    finally:
        os.kill(program, signal.SIGKILL)


def test_a_forked_child_holds_on(directory, holder):
    user = holder(directory, "fork")
    dsn, _, child = user.line(), user.line(), int(user.line())
    server = postmaster(directory)
    user.leave()
    assert query(dsn, "SELECT 1") == 1
    kill(child)
    gone(server)


class TestEphemeral:
    def test_is_fast_and_deleted(self, open_postgres):
        postgres = open_postgres(ephemeral=True)
        dsn = postgres.start()
        place = postgres.directory
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert query(dsn, f"SHOW {setting}") == "off"
        postgres.close()
        eventually(lambda: not place.exists(), f"{place} to be deleted")

    def test_each_has_its_own(self, open_postgres):
        first, second = open_postgres(ephemeral=True), open_postgres(ephemeral=True)
        assert first.start() != second.start()

    def test_is_deleted_after_a_kill(self, holder, room):
        user = holder("-", "ephemeral")
        user.line()
        place = room.parent / user.line()
        assert place.exists()
        user.kill()
        eventually(lambda: not place.exists(), f"{place} to be deleted")

    def test_a_named_one_is_shared_and_deleted(self, directory, open_postgres, holder):
        other = holder(directory, "ephemeral")
        dsn = other.line()
        mine = open_postgres(directory, ephemeral=True)
        assert mine.start() == dsn
        other.leave()
        assert query(dsn, "SELECT 1") == 1
        mine.close()
        eventually(lambda: not directory.exists(), f"{directory} to be deleted")
        assert mine.start(), "and made again"

    def test_is_deleted_when_the_keeper_was_killed(self, open_postgres):
        postgres = open_postgres(ephemeral=True)
        postgres.start()
        place, server = postgres.directory, postmaster(postgres.directory)
        kill(parent(server))
        gone(server)
        postgres.close()
        assert not place.exists()

    def test_never_takes_a_lasting_directory(self, directory, open_postgres):
        with open_postgres(directory) as lasting:
            with pytest.raises(EmbeddedPostgresError, match="not empty"):
                open_postgres(directory, ephemeral=True).start()
            query(lasting.dsn, "CREATE TABLE t (n int)")
            server = postmaster(directory)
        gone(server)
        with pytest.raises(EmbeddedPostgresError, match="not empty"):
            open_postgres(directory, ephemeral=True).start()
        with open_postgres(directory) as lasting:
            assert query(lasting.dsn, "SELECT count(*) FROM t") == 0

    def test_never_takes_a_directory_with_files(self, directory, open_postgres):
        directory.mkdir(mode=0o711)
        (directory / "thesis.tex").write_text("years of work")
        with pytest.raises(EmbeddedPostgresError, match="not empty"):
            open_postgres(directory, ephemeral=True).start()
        assert (directory / "thesis.tex").read_text() == "years of work"

    def test_is_not_taken_for_lasting(self, directory, open_postgres):
        open_postgres(directory, ephemeral=True).start()
        with pytest.raises(EmbeddedPostgresError, match="ephemeral=True"):
            open_postgres(directory).start()
