"""Addresses of databases as people have them: read, and translated to what the driver takes.

The driver hands every parameter that it does not know to the server as a setting, which refuses the connection. So what
libpq, SQLAlchemy and others put into an address is translated here, or refused by the parameter's name. No value is
repeated in an error but for the few that cannot be secret: an address may hold a password.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from flowrun.errors import ConfigurationError

_FORM: Final = "postgresql://user:password@host:port/database, or embedded:///path"
_SCHEME: Final = re.compile(r"(?:postgres(?:ql)?|psql|pgsql|postgis)(?:\+\w+)?", re.IGNORECASE)
"""As libpq has it, and with the driver's name as SQLAlchemy has it; some web frameworks have names of their own."""
_DRIVERS: Final = frozenset(
    {
        "host", "port", "dbname", "database", "user", "password", "passfile", "sslmode", "sslcert", "sslkey",
        "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib",
    }
)  # fmt: skip
"""What the driver reads as libpq does."""
_ANYWAY: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"utf8", "utf-8", "unicode", "auto"}),
    "gssdelegation": frozenset({"0"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "min_protocol_version": frozenset({"3.0"}),
    "oauth_client_id": frozenset(),
    "oauth_client_secret": frozenset(),
    "oauth_issuer": frozenset(),
    "oauth_scope": frozenset(),
    "replication": frozenset({"false", "off", "no", "0"}),
    "require_auth": frozenset(),
    "requirepeer": frozenset(),
    "scram_client_key": frozenset(),
    "scram_server_key": frozenset(),
    "sslcertmode": frozenset({"allow"}),
    "sslcompression": frozenset({"0"}),
    "sslcrldir": frozenset(),
    "sslkeylogfile": frozenset(),
    "sslsni": frozenset({"1"}),
}
"""Parameters of libpq that the driver does not have, with the values that say what it does anyway."""
_WAYS_OUT: Final[Mapping[str, str]] = {
    "channel_binding": "sslmode=verify-full with sslrootcert= proves who the server is, too",
    "client_encoding": "flowrun speaks UTF-8",
    "load_balance_hosts": "hosts are tried in the order in which they stand",
    "sslcrldir": "sslcrl= names a file",
}
_FOREIGN: Final[Mapping[str, str]] = {
    "async_fallback": "",
    "command_timeout": "",
    "connection_limit": "say Flowrun(dsn, pool_size=...)",
    "currentschema": "say Flowrun(dsn, schema=...)",
    "max_overflow": "say Flowrun(dsn, pool_size=...)",
    "pgbouncer": "say Flowrun(dsn, pooler=True)",
    "pool_size": "say Flowrun(dsn, pool_size=...)",
    "pool_timeout": "",
    "prepared_statement_cache_size": "for a pooler in transaction mode say Flowrun(dsn, pooler=True)",
    "prepared_statement_name_func": "for a pooler in transaction mode say Flowrun(dsn, pooler=True)",
    "schema": "say Flowrun(dsn, schema=...)",
    "socket_timeout": "",
    "sslaccept": "say sslmode=",
    "statement_cache_size": "for a pooler in transaction mode say Flowrun(dsn, pooler=True)",
}
"""Parameters of other libraries, with what flowrun has instead."""
OWN: Final = frozenset(
    {
        "default_transaction_isolation", "idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout",
        "statement_timeout",
    }
)  # fmt: skip
"""Settings of the server that flowrun makes for its own sessions: those of an address are meant for others."""
_SSL: Final[Mapping[str, str]] = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}


@dataclass(frozen=True, slots=True)
class Keepalive:
    """What TCP does to find out that the other host is gone. None: as flowrun has it."""

    on: bool = True
    idle: int | None = None
    """Seconds of silence before the first question."""
    interval: int | None = None
    """Seconds between questions."""
    count: int | None = None
    """Unanswered questions after which the host is gone."""
    user_timeout: int | None = None
    """Milliseconds that what was sent may stay unacknowledged."""


@dataclass(frozen=True, slots=True)
class Address:
    """A PostgreSQL as the driver is told of it."""

    url: str = field(repr=False)
    connect_timeout: float | None = None
    """Seconds; None: as flowrun has it."""
    keepalive: Keepalive = Keepalive()
    application_name: str | None = None


def check_dsn(dsn: str) -> str:
    """``dsn`` if it is an address flowrun can use.

    Raises ConfigurationError, which never repeats it: it may hold a password.

    >>> check_dsn("postgresql://localhost/shop")
    'postgresql://localhost/shop'
    """
    if dsn.partition(":")[0] == "embedded":
        _split(dsn)
    else:
        read(dsn)
    return dsn


def read(dsn: str) -> Address:
    """Translate an address to what the driver takes. Raises ConfigurationError, by the parameter's name.

    >>> read("postgresql+asyncpg://localhost/shop?connect_timeout=5").connect_timeout
    5.0
    """
    parts = _split(dsn)
    if not _SCHEME.fullmatch(dsn.partition(":")[0]):
        raise _unreadable()
    given = {name.lower() if name.lower() in _FOREIGN else name: value for name, value in _query(parts).items()}
    service = given.pop("service", "") or os.environ.get("PGSERVICE", "")
    file = given.pop("servicefile", "")
    if service:
        given = {**_service(service, file), **given}
    if timeout := os.environ.get("PGCONNECT_TIMEOUT"):
        given.setdefault("connect_timeout", timeout)
    kept = _kept(given)
    query = urlencode(kept, quote_via=quote, safe="/:,")
    # An empty name of a database would count more than the one among the parameters.
    path = f"/{parts.path.removeprefix('/')}" if parts.path.strip("/") else ""
    return Address(
        f"postgresql://{parts.netloc}{path}{f'?{query}' if query else ''}",
        connect_timeout=_number(given, "connect_timeout"),
        keepalive=Keepalive(
            on=_number(given, "keepalives") != 0,
            idle=_whole(given, "keepalives_idle"),
            interval=_whole(given, "keepalives_interval"),
            count=_whole(given, "keepalives_count"),
            user_timeout=_whole(given, "tcp_user_timeout"),
        ),
        application_name=given.get("application_name") or given.get("fallback_application_name") or None,
    )


_READ_HERE: Final = frozenset(
    {
        "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
        "tcp_user_timeout", "application_name", "fallback_application_name",
    }
)  # fmt: skip
"""What does not stand in the address that the driver gets."""


def _kept(given: Mapping[str, str]) -> dict[str, str]:
    """The parameters that the driver takes: by itself, or as settings of the server."""
    kept: dict[str, str] = {}
    for name, value in given.items():
        if name in _DRIVERS:
            kept[name] = _chosen(name, value) if value and name in _CHOICES else value
        elif name in _READ_HERE or name in OWN or not value:
            continue
        elif name in _ANYWAY:
            if value.lower() not in _ANYWAY[name]:
                raise _refused(name, _ANYWAY[name])
        elif name in _FOREIGN:
            raise ConfigurationError(
                f"the DSN's parameter {name} is not PostgreSQL's: {_FOREIGN[name] or 'leave it out'} (the DSN is not "
                "repeated here)"
            )
        elif name == "hostaddr":
            if "host" in given:
                raise ConfigurationError("the DSN has host and hostaddr: the driver looks names up by itself, give one")
            kept["host"] = value
        elif name in {"ssl", "requiressl"}:
            kept.setdefault("sslmode", _mode(name, value))
        else:
            kept[name] = value
    return kept


def _refused(name: str, fine: Iterable[str]) -> ConfigurationError:
    values = " or ".join(f"{name}={value}" for value in sorted(fine))
    way = _WAYS_OUT.get(name)
    return ConfigurationError(
        f"the DSN's parameter {name} asks for what the driver (asyncpg) does not do: "
        f"{f'leave it out, or say {values}' if values else 'leave it out'}{f'; {way}' if way else ''}"
    )


def _mode(name: str, value: str) -> str:
    mode = _SSL.get(value.lower(), value.lower())
    return _chosen("sslmode", mode, said=name)


def _chosen(name: str, value: str, *, said: str | None = None) -> str:
    if value not in _CHOICES[name]:
        raise ConfigurationError(f"the DSN's parameter {said or name} is none of {', '.join(_CHOICES[name])}")
    return value


def _number(given: Mapping[str, str], name: str) -> float | None:
    """A number; None where nothing is said, or as much as nothing: libpq takes 0 and less for no limit."""
    value = given.get(name, "")
    if not value:
        return None
    if not re.fullmatch(r"-?\d{1,9}(?:\.\d{1,9})?", value, re.ASCII):
        raise ConfigurationError(f"the DSN's parameter {name} is a number; it is not repeated here")
    number = float(value)
    return number if number > 0 or name == "keepalives" else None


def _whole(given: Mapping[str, str], name: str) -> int | None:
    number = _number(given, name)
    return None if number is None else max(1, int(number))


def _split(dsn: str) -> SplitResult:
    """The parts of a URL; ConfigurationError where they cannot be told apart."""
    try:
        dsn.encode()  # surrogates are no text that could be sent
        parts = urlsplit(dsn)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
        hosts = parts.netloc.rpartition("@")[2].split(",")
        lone = parts.netloc.count("@") <= 1  # in a password it is written %40: what comes behind it is taken for a host
        ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
        readable = lone and all(not port or (port.isdecimal() and 0 < int(port) < 65_536) for port in ports)
    except ValueError:
        raise _unreadable() from None
    if not readable:
        raise _unreadable()
    return parts


def _unreadable() -> ConfigurationError:
    return ConfigurationError(f"the DSN cannot be read (it is not repeated here); write it as {_FORM}")


def _query(parts: SplitResult) -> dict[str, str]:
    """The parameters of a URL. Of those that come twice the last counts, but hosts and ports are lists."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        found[name] = f"{found[name]},{value}" if name in {"host", "port"} and name in found else value
    return found


def _service(name: str, file: str) -> dict[str, str]:
    """What a service file says of a service."""
    chosen = file or os.environ.get("PGSERVICEFILE")
    places = [Path(chosen)] if chosen else [Path("~/.pg_service.conf").expanduser()]
    places.append(Path(os.environ.get("PGSYSCONFDIR") or "/etc/postgresql-common", "pg_service.conf"))
    for place in places:
        parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
        try:
            parser.read_string(place.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            raise ConfigurationError(f"the service file {place} cannot be read: {type(error).__name__}") from None
        if parser.has_section(name):
            return dict(parser[name])
    tried = " or ".join(map(str, places))
    raise ConfigurationError(f"the DSN names the service {name!r}, which is not in {tried}")
