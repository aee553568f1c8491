"""Roles: who may do what with flowrun's tables, as SQL for whoever administers the database."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from importlib.resources import files

from flowrun.store.statement import quote

_NAME = re.compile(r"\bflowrun_(owner|worker|dispatcher|reader)\b|(?<=schema )flowrun\b|\bflowrun(?=\.[a-z_])")
"""In one pass: what a name is replaced by is not looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the roles are called."""

    owner: str = "flowrun_owner"
    worker: str = "flowrun_worker"
    dispatcher: str = "flowrun_dispatcher"
    reader: str = "flowrun_reader"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(getattr(self, field.name) for field in fields(self))


def script(schema: str, roles: Roles) -> str:
    """SQL that makes the roles, where they are not there, and grants them what they need; can be run again.

    Raises ConfigurationError for a name that cannot be a role's.
    """
    head, _, text = (files("flowrun.store") / "roles.sql").read_text("utf-8").partition("\n\n")
    granted = _NAME.sub(lambda match: quote(getattr(roles, match[1]), "a role") if match[1] else quote(schema), text)
    made = "\n".join([*(_made(name) for name in dict.fromkeys(roles.names)), _owned(schema, roles.owner)])
    return f"{head}\n\nbegin;\n\n{made}\n\n{granted.strip()}\n\ncommit;\n"


def _made(name: str) -> str:
    quoted = quote(name, "a role")
    there = f"if not exists (select from pg_roles where rolname = {_literal(name)}) then"
    return f"do {_literal(f'begin {there} create role {quoted} nologin; end if; end')};"


def _owned(schema: str, owner: str) -> str:
    """All that stands in the schema now, given to its owner. Names are formatted by PostgreSQL itself."""
    body = f"""
    declare
        one record;
    begin
        for one in
            select c.relname, case c.relkind when 'v' then 'view' else 'table' end as kind
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = {_literal(schema)} and c.relkind in ('r', 'p', 'v')
        loop
            execute format('alter %s %I.%I owner to %I', one.kind, {_literal(schema)}, one.relname, {_literal(owner)});
        end loop;
        for one in
            select p.oid::regprocedure::text as name
            from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = {_literal(schema)}
        loop
            execute format('alter routine %s owner to %I', one.name, {_literal(owner)});
        end loop;
    end"""  # noqa: S608 - only constants made by _literal
    return f"do {_literal(body)};"


def _literal(text: str) -> str:
    """``text`` as a string constant, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"
