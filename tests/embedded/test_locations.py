"""The default directory and the ``embedded:`` addresses."""

from pathlib import Path

import pytest

from flowrun.embedded import default_directory, directory_from_dsn
from flowrun.errors import EmbeddedPostgresError


@pytest.fixture(autouse=True)
def home(monkeypatch):
    for name in ("FLOWRUN_EMBEDDED_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("sys.platform", "linux")


def test_default(monkeypatch):
    assert default_directory() == Path("/home/ada/.local/share/flowrun/postgres")
    monkeypatch.setattr("sys.platform", "darwin")
    assert default_directory() == Path("/home/ada/Library/Application Support/flowrun/postgres")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert default_directory().is_relative_to("/home/ada")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_directory() == Path("/data/flowrun/postgres")
    monkeypatch.setenv("FLOWRUN_EMBEDDED_DIR", "~/pg")
    assert default_directory() == Path("/home/ada/pg")


@pytest.mark.parametrize("dsn", ["embedded://", "embedded:", "EMBEDDED://", "embedded:///"])
def test_no_path_is_the_default(dsn):
    assert directory_from_dsn(dsn) == default_directory()


@pytest.mark.parametrize(
    ("dsn", "path"),
    [
        ("embedded:///srv/flowrun", "/srv/flowrun"),
        ("embedded:/srv/flowrun", "/srv/flowrun"),
        ("embedded:///srv/with%20space", "/srv/with space"),
        ("embedded://~/pg", "/home/ada/pg"),
        ("embedded:~/pg", "/home/ada/pg"),
    ],
)
def test_absolute(dsn, path):
    assert directory_from_dsn(dsn) == Path(path)


@pytest.mark.parametrize("dsn", ["embedded:.flowrun/pg", "embedded://.flowrun/pg"])
def test_relative_to_the_current_directory(dsn, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert directory_from_dsn(dsn) == tmp_path / ".flowrun" / "pg"


@pytest.mark.parametrize("dsn", ["", "postgresql://localhost/app", "postgres://h/embedded:", "embedded", "/srv/pg"])
def test_any_other_address(dsn):
    assert directory_from_dsn(dsn) is None


def test_no_home(monkeypatch):
    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(EmbeddedPostgresError, match="FLOWRUN_EMBEDDED_DIR"):
        default_directory()
