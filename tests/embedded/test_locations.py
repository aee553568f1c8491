"""The default directory and the ``embedded:`` addresses."""

import re
from pathlib import Path

import pytest

from flowrun.embedded import default_database, default_directory, directory_from_dsn
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


def test_each_project_has_a_database(tmp_path, monkeypatch):
    monkeypatch.delenv("FLOWRUN_EMBEDDED_DATABASE", raising=False)
    for name in ("My Shop", "other/my-shop", "größe", "pg_stat"):
        (tmp_path / name / "src" / "deep").mkdir(parents=True)
        (tmp_path / name / "pyproject.toml").touch()
    shop = default_database(tmp_path / "My Shop")
    assert re.fullmatch(r"my_shop_[0-9a-f]{6}", shop)
    assert default_database(tmp_path / "My Shop" / "src" / "deep") == shop
    other = default_database(tmp_path / "other" / "my-shop")
    assert other.startswith("my_shop_")
    assert other != shop
    assert re.fullmatch(r"gr_e_[0-9a-f]{6}", default_database(tmp_path / "größe"))
    assert default_database(tmp_path / "pg_stat").startswith("ppg_stat_")
    monkeypatch.chdir(tmp_path / "My Shop" / "src")
    assert default_database() == shop
    monkeypatch.setenv("FLOWRUN_EMBEDDED_DATABASE", "Ours")
    assert default_database() == "Ours"
    for wrong in ("x" * 64, "a\nb", "template1"):
        monkeypatch.setenv("FLOWRUN_EMBEDDED_DATABASE", wrong)
        with pytest.raises(EmbeddedPostgresError, match="FLOWRUN_EMBEDDED_DATABASE"):
            default_database()
