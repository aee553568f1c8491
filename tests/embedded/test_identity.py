"""As whom the server runs, and that nothing of the user's is opened up for it."""

import os
import pwd
import shutil
import subprocess
import sys

import pytest

from flowrun.embedded import binaries, identity, installation
from flowrun.errors import EmbeddedPostgresError

from .processes import REPOSITORY, gone, kill, parent, postmaster, query

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")


def owner(pid):
    return int(subprocess.check_output(["ps", "-o", "uid=", "-p", str(pid)], text=True))


@pytest.fixture
def system_state(monkeypatch, room):
    """Stands for /var/lib/flowrun."""
    state = room / "state"
    monkeypatch.setattr(installation, "SYSTEM_STATE", state)
    return state


@pytest.fixture
def closed(room):
    """A directory like root's home: nobody else gets in."""
    closed = room / "closed"
    closed.mkdir(mode=0o700)
    yield closed
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_server_is_never_root(directory, open_postgres):
    with open_postgres(directory):
        uid = owner(postmaster(directory))
        assert uid != 0
        assert os.geteuid() in (0, uid)


@as_root
def test_root_can_name_the_account(monkeypatch, directory, open_postgres):
    monkeypatch.setenv("FLOWRUN_PG_USER", "nobody")
    with open_postgres(directory):
        server = postmaster(directory)
        assert owner(server) == pwd.getpwnam("nobody").pw_uid
    gone(server)
    monkeypatch.delenv("FLOWRUN_PG_USER")
    with open_postgres(directory):
        server = postmaster(directory)
        assert owner(server) == pwd.getpwnam("nobody").pw_uid, "the data stay with their owner"


@as_root
def test_root_takes_over_data_restored_by_root(directory, open_postgres):
    with open_postgres(directory) as postgres:
        query(postgres.dsn, "CREATE TABLE t (n int)")
        server = postmaster(directory)
    gone(server)
    for folder, _, files in os.walk(directory / "data"):
        for name in (".", *files):
            os.chown(os.path.join(folder, name), 0, 0)
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT count(*) FROM t") == 0


@as_root
def test_root_follows_no_link_to_somebody_elses_files(room, directory, open_postgres):
    theirs = room / "theirs"
    theirs.mkdir()
    (theirs / "PG_VERSION").write_text("18\n")
    directory.mkdir(mode=0o711)
    os.chown(directory, pwd.getpwnam("nobody").pw_uid, -1)
    (directory / "data").symlink_to(theirs)
    with pytest.raises(EmbeddedPostgresError, match="symbolic link"):
        open_postgres(directory).start()
    assert (theirs / "PG_VERSION").stat().st_uid == theirs.stat().st_uid == 0


@as_root
def test_what_is_given_away_is_only_what_is_there(room):
    """Links put there meanwhile, soft or hard, lead to nothing that changes hands."""
    outside = room / "outside"
    outside.mkdir()
    (outside / "shadow").touch()
    (outside / "passwd").touch()
    inside = room / "inside"
    (inside / "base").mkdir(parents=True)
    (inside / "base" / "own").touch()
    (inside / "soft").symlink_to(outside)
    (inside / "base" / "soft").symlink_to(outside / "passwd")
    (inside / "base" / "hard").hardlink_to(outside / "shadow")
    nobody = pwd.getpwnam("nobody")
    identity.Identity(nobody.pw_uid, nobody.pw_gid).give(inside)
    assert {path.stat().st_uid for path in (outside, outside / "shadow", outside / "passwd")} == {0}
    assert {path.stat().st_uid for path in (inside, inside / "base", inside / "base" / "own")} == {nobody.pw_uid}
    (room / "link").symlink_to(outside)
    identity.Identity(nobody.pw_uid, nobody.pw_gid).give(room / "link")
    assert outside.stat().st_uid == 0


@as_root
@pytest.mark.parametrize("name", ["root", "no-such-account"])
def test_an_account_that_cannot_be(monkeypatch, directory, open_postgres, name):
    monkeypatch.setenv("FLOWRUN_PG_USER", name)
    with pytest.raises(EmbeddedPostgresError, match=f"FLOWRUN_PG_USER={name}"):
        open_postgres(directory).start()


@as_root
def test_a_closed_directory_has_a_stand_in(system_state, closed, open_postgres):
    first = open_postgres(closed / "deep" / "pg")
    query(first.start(), "CREATE TABLE t (n int)")
    assert first.directory.parent == system_state
    assert not (closed / "deep").exists()
    again = open_postgres(closed / "deep" / "pg")
    assert again.start() == first.dsn


@as_root
def test_programs_out_of_reach_are_copied_once(monkeypatch, system_state, closed, directory, open_postgres):
    bindir = binaries.find_bindir()
    if not (bindir.parent / "share" / "postgres.bki").exists():
        pytest.skip("needs an installation under one prefix")
    package = bindir.parent.parent
    prefix = closed / package.name / bindir.parent.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(bindir.parent / part, prefix / part, symlinks=True)
    bundled = package.with_name(f"{package.name}.libs")
    if bundled.is_dir():
        shutil.copytree(bundled, closed / bundled.name)
    monkeypatch.setenv("FLOWRUN_PG_BIN", str(prefix / "bin"))
    unfinished = system_state / "programs-0123.unfinished"
    unfinished.mkdir(parents=True)
    for _ in range(2):
        with open_postgres(directory) as postgres:
            assert query(postgres.dsn, "SELECT 1") == 1
            server = postmaster(directory)
        gone(server)
    assert len(list(system_state.glob("programs-*/package"))) == 1


@as_root
def test_an_ephemeral_one_finds_a_reachable_place(monkeypatch, closed, open_postgres):
    monkeypatch.setattr("tempfile.tempdir", str(closed))
    with open_postgres(ephemeral=True) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
        assert closed not in postgres.directory.parents


@pytest.mark.parametrize("killed", ["nothing", "keeper"])
def test_a_namespace_when_the_user_cannot_be_changed(monkeypatch, directory, open_postgres, killed):
    if not identity._namespace_works():
        pytest.skip("user namespaces are closed here")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(identity, "_check_switch", refuse)
    with open_postgres(directory) as postgres:
        assert query(postgres.dsn, "SELECT 1") == 1
        server = postmaster(directory)
        assert owner(server) == os.geteuid()
        if killed == "keeper":
            kill(parent(server))
            gone(server)
            assert query(postgres.start(), "SELECT 1") == 1
            server = postmaster(directory)
    gone(server)


def test_no_way_at_all(monkeypatch, directory, open_postgres):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(identity, "_check_switch", refuse)
    monkeypatch.setattr(identity, "_namespace_works", lambda: False)
    with pytest.raises(EmbeddedPostgresError, match="FLOWRUN_DSN"):
        open_postgres(directory).start()


def test_windows_is_told_what_to_do():
    program = """
import asyncio, ctypes, shutil, subprocess, sys, tempfile, pathlib, zoneinfo
for missing in ("fcntl", "pwd"):
    sys.modules[missing] = None
sys.platform = "win32"
from flowrun.embedded import EmbeddedPostgres, directory_from_dsn
assert directory_from_dsn("postgresql://h/db") is None
try:
    EmbeddedPostgres("x").start()
except Exception as error:
    print(type(error).__name__, error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert said.stdout.startswith("EmbeddedPostgresError"), said.stderr
    assert "FLOWRUN_DSN" in said.stdout
