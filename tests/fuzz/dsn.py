"""Addresses of databases: read, or refused with an error of flowrun's that does not repeat them."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

from asyncpg import connect_utils
from hypothesis import strategies as st

from flowrun import Flowrun
from flowrun.dsn import check_dsn, read
from flowrun.embedded import directory_from_dsn
from flowrun.errors import ConfigurationError, FlowrunError
from flowrun.redaction import redact
from flowrun.store.pool import translated, understood, where

SECRET = "hunter2"

schemes = st.sampled_from(["postgresql", "postgres", "embedded", "POSTGRESQL", "http", "", "postgresql+asyncpg"])
hosts = st.sampled_from(
    ["localhost", "[::1]", "[::1", "::1", "a,b", "a:1,b:2", "", "%2Ftmp", "ü.example", "a b", "a\x00b", "db:5432", "db:99999",
     "db:-1", "db:", "db:5432,", "/tmp", "[v1.x]", "a%zz", "db:٣"]
)  # fmt: skip
users = st.sampled_from(
    ["", f"ann:{SECRET}@", f":{SECRET}@", "ann@", f"a%40b:{SECRET}%2F@", f"ann:{SECRET}/x@", f"@:{SECRET}@"]
)
paths = st.sampled_from(
    ["", "/", "/shop", "/shop/more", "/%00", "//x", "/sh op", "/~nobody/x", "~nobody", "/~"]
) | st.text(max_size=9)
options = st.lists(
    st.tuples(
        st.sampled_from(["sslmode", "host", "port", "user", "password", "passfile", "sslcert", "sslrootcert", "target_session_attrs",
                         "connect_timeout", "x", "", "gsslib", "krbsrvname", "service", "sslnegotiation", "ssl_min_protocol_version"]),
        st.sampled_from(["require", "nonsense", "", "5432,1", "abc", "/nowhere", "a,b", "%zz", "any", "-1", "verify-full", "[", "direct"]),
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{key}={SECRET if key == 'password' else value}" for key, value in pairs))  # fmt: skip
queries = st.just("") | options.map(lambda text: f"?{text}") | st.sampled_from(["?", "?x", "?&&", "#x", "?a=b#c"])
VALUES = st.builds(
    lambda *parts: f"{parts[0]}://{''.join(parts[1:])}", schemes, users, hosts, paths, queries
) | st.text(max_size=40)
GIVEN = {name: None for name in signature(connect_utils._parse_connect_dsn_and_args).parameters if name != "dsn"}
"""What else the driver reads a DSN with."""
connect_utils._parse_connect_dsn_and_args(dsn="postgresql://ann:x@db:5432/shop", **GIVEN)


def check(dsn: str) -> None:
    try:
        assert check_dsn(dsn) == dsn
    except ConfigurationError as error:
        assert SECRET not in str(error)
        return
    try:
        directory = directory_from_dsn(dsn)
    except FlowrunError:
        return
    if directory is not None:
        assert isinstance(directory, Path)
        assert directory.is_absolute()
        return
    assert Flowrun(dsn).dsn == dsn
    assert f":{SECRET}" not in where(dsn) or f":{SECRET}@" not in dsn
    assert f":{SECRET}@" not in redact(f"cannot connect to {dsn} at all")
    try:
        with translated(dsn, "flowrun"), understood():
            connect_utils._parse_connect_dsn_and_args(dsn=read(dsn).url, **GIVEN)
    except FlowrunError as error:
        assert SECRET not in str(error) or f":{SECRET}@" not in dsn
