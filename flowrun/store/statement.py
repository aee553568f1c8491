"""The SQL statements, one file each, with the schema's name filled in."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from flowrun.errors import ConfigurationError

DEFAULT_SCHEMA = "flowrun"
_QUALIFIER = re.compile(r"\bflowrun\.(?=[a-z_])")
_PART = re.compile(r"(?:^|(?<=^with ))(?P<name>\w+) as (?:materialized )?\(\n.*?^\)", re.DOTALL | re.MULTILINE)
_SHARED = re.compile(r"^-- from (?P<other>\w+): (?P<parts>.+)\n", re.MULTILINE)
_SQL = files("flowrun.store") / "sql"


def quote(identifier: str, what: str = "schema") -> str:
    """``identifier`` as PostgreSQL reads it back unchanged; ConfigurationError if it cannot name ``what``."""
    encoded = identifier.encode("utf-8", "replace")
    if not identifier or len(encoded) > 63 or "\x00" in identifier or identifier.startswith("pg_"):
        raise ConfigurationError(
            f"{what} must be a name of 1 to 63 bytes that does not begin with 'pg_'; got {identifier!r}"
        )
    return '"' + identifier.replace('"', '""') + '"'


def render(text: str, schema: str) -> str:
    """``text`` with the qualifier ``flowrun.`` replaced by the configured schema, quoted."""
    qualifier = quote(schema) + "."
    return _QUALIFIER.sub(lambda _: qualifier, text)


class Statements:
    """The statements by name: ``statements["claim"]``."""

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        quote(schema)  # refuse a bad name now, not at the first statement
        self.schema = schema
        self._rendered: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        text = self._rendered.get(name)
        if text is None:
            text = self._rendered[name] = render(_body(_text(name)), self.schema)
        return text


@cache
def names() -> tuple[str, ...]:
    """The names of all statements."""
    return tuple(sorted(file.name.removesuffix(".sql") for file in _SQL.iterdir() if file.name.endswith(".sql")))


def parts(statement: str) -> dict[str, str]:
    """The parts of a `with`, by name."""
    return {found["name"]: found[0] for found in _PART.finditer(statement)}


def _text(name: str) -> str:
    """A statement's file, and in it what it shares with another: `-- from OTHER: PART PART`."""
    text = (_SQL / f"{name}.sql").read_text("utf-8")

    def shared(line: re.Match[str]) -> str:
        others = parts(_text(line["other"]))
        return "".join(f"{others[part]},\n" for part in line["parts"].split())

    return _SHARED.sub(shared, text)


def _body(text: str) -> str:
    """Without the comments: they are for readers, and would be sent with every unprepared call."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--")).strip()
