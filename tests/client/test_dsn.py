"""Addresses as people have them: translated to what the driver takes, or refused by the parameter's name."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest

from flowrun import ConfigurationError, DatabaseUnavailable, Flowrun
from flowrun.dsn import Address, Keepalive, read
from flowrun.embedded import EmbeddedPostgres
from flowrun.store.pool import where

SECRET = "hunter2"


async def asked(dsn: str, question: str = "select current_database()") -> str:
    async with Flowrun(dsn) as app, app.client.database.acquire() as connection:
        return str(await connection.fetchval(question))


@pytest.fixture
def parts(dsn: str) -> dict[str, str]:
    """The parts of the address of the test's database."""
    split = urlsplit(dsn)
    given = dict(parse_qsl(split.query))
    return {
        "user": split.username or given.get("user", ""),
        "dbname": split.path.lstrip("/"),
        "host": split.hostname or given["host"],
        "port": str(split.port or given.get("port", 5432)),
    } | ({"password": split.password} if split.password else {})


@pytest.mark.parametrize(
    "scheme",
    ["postgres", "POSTGRESQL", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2", "postgis", "psql"],
)
async def test_schemes_of_other_libraries(dsn: str, scheme: str) -> None:
    assert await asked(scheme + dsn[len("postgresql") :]) == urlsplit(dsn).path.lstrip("/")


@pytest.mark.parametrize(
    "parameters",
    [
        "connect_timeout=5",
        "connect_timeout=0",
        "channel_binding=prefer",
        "channel_binding=disable",
        "gssencmode=disable",
        "gssencmode=prefer",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=10000",
        "keepalives=0",
        "target_session_attrs=read-write",
        "target_session_attrs=any",
        "sslmode=prefer&sslcompression=0&sslsni=1",
        "ssl=disable",
        "requiressl=0",
        "client_encoding=utf8",
        "client_encoding=UTF-8",
        "load_balance_hosts=disable",
        "fallback_application_name=psql",
        "statement_timeout=1&lock_timeout=1",
        "options=-c%20work_mem%3D7MB",
        "work_mem=7MB",
        "app.tenant=7",
        "replication=false&passfile=/nowhere&krbsrvname=postgres",
    ],
)
async def test_parameters_of_libpq_are_taken(dsn: str, parameters: str) -> None:
    assert await asked(f"{dsn}&{parameters}") == urlsplit(dsn).path.lstrip("/")


async def test_settings_of_the_server_count_and_its_own_do_not(dsn: str) -> None:
    assert await asked(f"{dsn}&options=-c%20work_mem%3D7MB", "show work_mem") == "7MB"
    assert await asked(f"{dsn}&app.tenant=7", "show app.tenant") == "7"
    assert await asked(f"{dsn}&statement_timeout=1", "show statement_timeout") == "10min"
    assert await asked(f"{dsn}&application_name=shop", "show application_name") == "shop"
    assert await asked(f"{dsn}&fallback_application_name=shop", "show application_name") == "shop"
    assert await asked(dsn, "show application_name") == "flowrun"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("channel_binding=require", "channel_binding"),
        ("gssencmode=require", "gssencmode"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("sslcompression=1", "sslcompression"),
        ("sslcrldir=/x", "sslcrldir"),
        ("client_encoding=latin1", "client_encoding"),
        ("replication=database", "replication"),
        ("load_balance_hosts=random", "load_balance_hosts"),
        ("connect_timeout=soon", "connect_timeout"),
        ("keepalives_idle=x", "keepalives_idle"),
        ("ssl=maybe", "ssl"),
        ("pgbouncer=true", r"pgbouncer.*pooler=True"),
        ("prepared_statement_cache_size=0", r"prepared_statement_cache_size.*pooler=True"),
        ("schema=public", r"schema.*Flowrun\(dsn, schema=...\)"),
        ("currentSchema=public", "currentschema"),
        ("connection_limit=5", r"connection_limit.*pool_size"),
        (f"oauth_client_secret={SECRET}", "oauth_client_secret"),
        (f"scram_client_key={SECRET}", "scram_client_key"),
        ("service=shop_of_nobody", "shop_of_nobody"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(parameters: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as refused:
        Flowrun(f"postgresql://ann:{SECRET}@localhost/shop?{parameters}")
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigurationError, match=named):
        Flowrun("postgresql://localhost/shop").use_dsn(f"postgresql://localhost/shop?{parameters}")


async def test_a_setting_the_server_does_not_have_is_named(dsn: str) -> None:
    for wrong in ("sslmod=require", "work_mem=lots"):
        with pytest.raises(ConfigurationError, match=wrong.partition("=")[0]):
            await asked(f"{dsn}&{wrong}")


async def test_a_standby_that_is_not_there(dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        await asked(f"{dsn}&target_session_attrs=standby")
    with pytest.raises(ConfigurationError):
        await asked(f"{dsn}&target_session_attrs=primary-ish")


def test_messages_name_host_and_database_wherever_they_stand() -> None:
    assert where("postgresql+asyncpg://ann:x@db.example.com:5433/shop?connect_timeout=5") == "db.example.com:5433/shop"
    assert where("postgresql:///?host=db.example.com&port=5433&dbname=shop&password=x") == "db.example.com:5433/shop"


async def test_service_files(dsn: str, parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "services"
    lines = [f"{name}={value}" for name, value in parts.items()]
    file.write_text("# ours\n[shop]\n" + "\n".join(lines) + "\nconnect_timeout=5\nchannel_binding=prefer\n[other]\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert await asked("postgresql://?service=shop") == parts["dbname"]
    assert await asked("postgresql://?service=shop&application_name=x", "show application_name") == "x"
    assert read("postgresql://?service=shop").connect_timeout == 5.0
    with pytest.raises(ConfigurationError, match=r"'shopp'.*services"):
        Flowrun("postgresql://?service=shopp")
    monkeypatch.setenv("PGSERVICE", "shop")
    assert await asked("postgresql:///") == parts["dbname"]
    file.write_text("no section\n")
    with pytest.raises(ConfigurationError, match="cannot be read: MissingSectionHeaderError"):
        Flowrun("postgresql://?service=shop")


def test_what_the_driver_gets() -> None:
    for dsn, url in {
        "postgresql://a:b%40c@h:1,i:2/d?sslmode=require": "postgresql://a:b%40c@h:1,i:2/d?sslmode=require",
        "postgresql+asyncpg://h/d?ssl=true": "postgresql://h/d?sslmode=require",
        "postgresql+asyncpg:///d?host=a:1&host=b:2": "postgresql:///d?host=a:1,b:2",
        "postgresql:///d?hostaddr=127.0.0.1": "postgresql:///d?host=127.0.0.1",
        "postgresql://h/d?application_name=x&statement_timeout=5": "postgresql://h/d",
        "postgresql://h/d?password=a+b%26c": "postgresql://h/d?password=a%20b%26c",
    }.items():
        assert read(dsn).url == url
    assert read("postgresql://h?keepalives=0&keepalives_idle=7&tcp_user_timeout=9") == Address(
        "postgresql://h", keepalive=Keepalive(on=False, idle=7, user_timeout=9)
    )
    assert SECRET not in repr(read(f"postgresql://ann:{SECRET}@h/d?password={SECRET}"))


async def test_the_kernel_is_told_what_the_dsn_says(unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()
    with EmbeddedPostgres(ephemeral=True, port=port):
        dsn = f"postgresql://flowrun@127.0.0.1:{port}/postgres?keepalives_idle=77&keepalives_count=4&tcp_user_timeout=9000"
        for given, expected in (
            (dsn, (1, 77, 5, 4, 9000)),
            (dsn.partition("?")[0] + "?keepalives=0", (0, 15, 5, 3, 30000)),
        ):
            async with Flowrun(given) as app, app.client.database.acquire() as connection:
                sock = connection._con._transport.get_extra_info("socket")
                tcp = [
                    sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
                    for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
                ]
                assert (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *tcp) == expected


async def test_time_to_connect_is_the_dsns() -> None:
    """A host that takes connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match=f"127.0.0.1:{port}/d"):
            await asked(f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=1")


async def test_listen_dsn_is_read_the_same_way(dsn: str, connection: asyncpg.Connection) -> None:
    app = Flowrun(
        dsn, pooler=True, listen_dsn="postgresql+asyncpg" + dsn[len("postgresql") :] + "&channel_binding=prefer"
    )

    @app.handler
    async def one() -> int:
        return 1

    async with app.worker(concurrency=1):
        assert await (await one.dispatch()).result(timeout=10) == 1
    with pytest.raises(ConfigurationError, match="gssencmode"):
        Flowrun(dsn, listen_dsn="postgresql://h/d?" + urlencode({"gssencmode": "require"}))
