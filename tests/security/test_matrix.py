"""Who may do what with each thing in the schema, as the catalogue has it: whatever a migration adds has to be placed here."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.security.conftest import People

ROLES = ("owner", "worker", "dispatcher", "reader", "nobody")
VERBS = ("select", "insert", "update", "delete", "truncate", "references", "trigger")

READS = {
    # What a reader sees: all columns, these columns, or nothing.
    "attempts": "job_id attempt worker started_at ended_at error_type message",
    "audit": "id flow_id job_id verb actor reason done_at",
    "begun": "",
    "blocked": "*",
    "cancels": "*",
    "deadlines": "*",
    "edges": "parent_id child_id condition",
    "failed_jobs": "",
    "finished": "id outcome attempt started_at finished_at spoils cause error",
    "flow_status": "*",
    "flows": "*",
    "gates": "*",
    "job_status": "id flow_id name type queue priority state attempt optional created_at run_at started_at finished_at worker "
    "error_type error cause progress progress_message cancel_requested dispatched_by",
    "jobs": "id flow_id kind name queue type priority optional delay run_at created_at",
    "keys": "",
    "leases": "*",
    "migrations": "*",
    "progress": "",
    "pruning": "",
    "queues": "*",
    "ready": "*",
    "retention": "",
    "scheduled": "*",
    "schedules": "",
    "signals": "",
    "slots": "*",
    "starts": "*",
    "steps": "",
    "throttle": "",
    "types": "*",
    "workers": "*",
}
ROWS = "select insert update delete"
WORKER = {"migrations": "select", "audit": "select insert delete"} | dict.fromkeys(
    ("job_status", "flow_status", "failed_jobs"), "select"
)
"""What a worker may do, where that is not to change rows."""
DISPATCHER = {"migrations": "select"}
FUNCTIONS = {
    # Who may call it besides its owner, and whether it acts as its owner.
    "dispatch(json)": ({"dispatcher"}, True),
    "nodes_of(text,text,uuid)": ({"dispatcher"}, True),
    "remove_unstarted(uuid[])": (set(), False),
}


@pytest.fixture
async def names(people: People, connection: asyncpg.Connection) -> Any:
    nobody = people.login("owner").replace("login_owner", "login_nobody")
    await connection.execute(f"create role {nobody} login")
    yield {role: people.login(role) for role in ROLES[:-1]} | {"nobody": nobody}
    await connection.execute(f"drop role {nobody}")


async def test_tables_and_views(names: dict[str, str], connection: asyncpg.Connection) -> None:
    relations = await connection.fetch(
        "select oid, relname, relkind::text as kind from pg_class where relnamespace = 'flowrun'::regnamespace and relkind not in ('i', 'I', 'c')"
    )
    assert {one["kind"] for one in relations} == {"r", "v", "S"}, "something else: place it here, and in roles.sql"
    for one in [
        one for one in relations if one["kind"] == "S"
    ]:  # of identity columns: whoever inserts there needs none
        for role, name in names.items():
            for verb in ("usage", "select", "update"):
                may = await connection.fetchval(
                    "select has_sequence_privilege($1, $2::oid, $3)", name, one["oid"], verb
                )
                assert may == (role == "owner"), f"{role} on {one['relname']}"
    relations = [one for one in relations if one["kind"] != "S"]
    assert {one["relname"] for one in relations} == set(READS), "place what is new here, and in roles.sql"
    for role, name in names.items():
        for one in relations:
            found = {
                verb: await connection.fetchval("select has_table_privilege($1, $2::oid, $3)", name, one["oid"], verb)
                for verb in VERBS
            }
            table = one["relname"]
            expected = {
                "owner": set(VERBS),
                "worker": set(WORKER.get(table, ROWS).split()),
                "dispatcher": set(DISPATCHER.get(table, "").split()),
                "reader": {"select"} if READS[table] == "*" else set(),
                "nobody": set(),
            }[role]
            assert {verb for verb, may in found.items() if may} == expected, f"{role} on {table}"


async def test_columns(names: dict[str, str], connection: asyncpg.Connection) -> None:
    columns = await connection.fetch(
        "select a.attrelid, c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid "
        "where c.relnamespace = 'flowrun'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped"
    )
    seen: dict[str, set[str]] = {table: set() for table in READS}
    for one in columns:
        for role, name in names.items():
            if role in ("owner", "worker"):
                continue
            may = [
                verb
                for verb in ("select", "insert", "update", "references")
                if await connection.fetchval(
                    "select has_column_privilege($1, $2::oid, $3, $4)", name, one["attrelid"], one["attname"], verb
                )
            ]
            if role == "reader" and may == ["select"]:
                seen[one["relname"]].add(one["attname"])
            elif role != "dispatcher" or one["relname"] != "migrations":
                assert may == [], f"{role} on {one['relname']}.{one['attname']}"
    all_of = {table: {one["attname"] for one in columns if one["relname"] == table} for table in READS}
    assert seen == {table: all_of[table] if said == "*" else set(said.split()) for table, said in READS.items()}


async def test_functions(people: People, names: dict[str, str], connection: asyncpg.Connection) -> None:
    found = await connection.fetch(
        "select oid, replace(oid::regprocedure::text, 'flowrun.', '') as name, prosecdef, proconfig, proowner::regrole::text as owner, "
        "prokind::text as kind from pg_proc where pronamespace = 'flowrun'::regnamespace"
    )
    assert {one["name"] for one in found} == set(FUNCTIONS), "place what is new here, and in roles.sql"
    for one in found:
        callers, definer = FUNCTIONS[one["name"]]
        assert one["owner"] == people.roles.owner
        assert one["prosecdef"] == definer
        assert "search_path=pg_catalog, pg_temp" in one["proconfig"], one["name"]
        for role, name in names.items():
            may = await connection.fetchval("select has_function_privilege($1, $2::oid, 'execute')", name, one["oid"])
            assert may == (role == "owner" or role in callers), f"{role} on {one['name']}"


async def test_no_function_is_everybodys_before_there_are_roles(connection: asyncpg.Connection) -> None:
    """As a migration leaves them."""
    found = await connection.fetch(
        "select p.oid::regprocedure::text from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a "
        "where p.pronamespace = 'flowrun'::regnamespace and a.grantee = 0"
    )
    assert found == []


async def test_the_schema_and_what_is_made_later(
    people: People, names: dict[str, str], connection: asyncpg.Connection
) -> None:
    for role, name in names.items():
        for verb, may in (("usage", role != "nobody"), ("create", role == "owner")):
            found = await connection.fetchval("select has_schema_privilege($1, 'flowrun', $2)", name, verb)
            assert found == may, f"{role}: {verb}"
    owner = await people.connect("owner")
    await owner.execute(f"set role {people.roles.owner}")
    await owner.execute("create table flowrun.later (id integer)")
    await owner.execute("create function flowrun.later() returns integer language sql as 'select 1'")
    await owner.close()
    for role, name in names.items():
        may = await connection.fetchval("select has_function_privilege($1, 'flowrun.later()', 'execute')", name)
        assert may == (role == "owner"), role
        for verb in VERBS:
            may = await connection.fetchval("select has_table_privilege($1, 'flowrun.later', $2)", name, verb)
            assert may == (role == "owner" or (role == "worker" and verb in ROWS.split())), f"{role}: {verb}"


async def test_what_was_granted_before_is_taken_away_when_the_script_is_run_again(
    people: People, names: dict[str, str], connection: asyncpg.Connection
) -> None:
    """As the script of the version before left it, and as somebody has been generous."""
    from flowrun.store.roles import script

    dispatcher, reader, worker = people.roles.dispatcher, people.roles.reader, people.roles.worker
    await connection.execute(
        f"grant insert on flowrun.jobs, flowrun.deadlines, flowrun.edges to {dispatcher};"
        f"grant select (id, type), update (type) on flowrun.jobs to {dispatcher};"
        f"grant select on flowrun.edges, flowrun.signals to {reader}; grant truncate, trigger on flowrun.jobs to {worker};"
        "grant select on flowrun.jobs to public; grant usage on schema flowrun to public;"
        "grant execute on all functions in schema flowrun to public"
    )
    await connection.execute(script("flowrun", people.roles))
    await test_tables_and_views(names, connection)
    await test_columns(names, connection)
    await test_functions(people, names, connection)
