"""The doctor finds what is wrong, says what to do, and waits for nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from flowrun import Flowrun, Settings
from flowrun.client import doctor, findings
from flowrun.client.findings import Finding
from flowrun.errors import DatabaseUnavailable
from flowrun.store import migrate
from flowrun.store.migrate import Migration

SERVER = {
    "version": 180006, "recovery": False, "read_only": False, "role": "shop", "superuser": False, "fsync": True,
    "full_page_writes": True, "synchronous_commit": "on", "autovacuum": True, "sessions": 5, "sessions_most": 97, "here": 2,
    "here_most": -1, "mine": 2, "mine_most": -1, "notifications": 0.0, "sees_all": True,
}  # fmt: skip


def server(**changed: Any) -> dict[str, Finding]:
    """What is wrong with a server, by check."""
    skew = changed.pop("skew", 0.01)
    return bad(findings.of_server(SERVER | changed, skew))


def bad(found: list[Finding]) -> dict[str, Finding]:
    assert all(one.advice for one in found if one.level == "wrong")
    return {one.check: one for one in found if one.level == "wrong"}


@pytest.mark.parametrize(
    ("changed", "check", "says"),
    [
        ({"version": 130011}, "server", "13 is too old"),
        ({"recovery": True, "read_only": True}, "read-only", "standby"),
        ({"read_only": True}, "read-only", "read-only for this role"),
        ({"fsync": False}, "disk", "fsync is off"),
        ({"full_page_writes": False}, "disk", "full_page_writes"),
        ({"synchronous_commit": "off"}, "disk", "loses the last"),
        ({"autovacuum": False}, "autovacuum", "off on this server"),
        ({"skew": 5.0}, "clock", "5.0 s ahead of"),
        ({"skew": -3600.0}, "clock", "3600.0 s behind"),
        ({"sessions": 96}, "connections", "96 of 97"),
        ({"mine": 9, "mine_most": 10}, "connections", "role 'shop' has 9 of 10"),
        ({"here": 0, "here_most": 0}, "connections", "0 of 0"),
        ({"notifications": 0.5}, "notifications", "50% full"),
    ],
)
def test_what_is_wrong_with_a_server(changed: dict[str, Any], check: str, says: str) -> None:
    assert server() == {}
    found = server(**changed)
    assert says in found[check].found
    assert list(found) == [check]


def table(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name, "live": 10, "dead": 0, "table_bytes": 8192, "index_bytes": 8192, "vacuumed_at": None, "cleaned": True
    } | changed  # fmt: skip


def test_bloat() -> None:
    assert not bad(findings.of_tables([table("ready"), table("jobs", dead=10**9)]))
    dirty = table("ready", dead=100_000, vacuumed_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert "100,000 dead rows" in bad(findings.of_tables([dirty]))["bloat"].found
    big = table("leases", index_bytes=2**30)
    assert "1,024 MiB for 10 rows" in bad(findings.of_tables([big]))["bloat"].found
    assert bad(findings.of_tables([table("jobs", cleaned=False)]))["autovacuum"].advice


def test_what_was_set_for_the_role_counts_only_through_a_pooler() -> None:
    rows = [{"name": "statement_timeout", "value": "1s"}, {"name": "work_mem", "value": "1MB"}]
    assert bad(findings.of_settings(rows, pooled=True))["settings"].advice == "alter role ... set statement_timeout = 0"
    assert [one.level for one in findings.of_settings(rows, pooled=False)] == ["note"]


async def look(dsn: str, **settings: Any) -> list[Finding]:
    found = await doctor.examine(dsn, Settings(**settings))
    assert all(one.advice for one in found if one.level == "wrong")
    return found


def of(found: list[Finding], check: str) -> list[Finding]:
    return [one for one in found if one.check == check]


async def test_a_patient_in_good_health(app: Flowrun, dsn: str) -> None:
    @app.handler
    async def work() -> None: ...

    async with app.worker():
        await work.dispatch()
        found = await look(dsn)
    # The test server is told to forget: its disk is not in good health.
    assert not [one for one in found if one.level == "wrong" and one.check not in {"disk", "connections"}]
    assert {
        "server",
        "clock",
        "connections",
        "pooler",
        "listening",
        "schema",
        "horizon",
        "bloat",
        "workers",
        "served",
    } <= {one.check for one in found}


async def test_jobs_nobody_serves_queues_that_are_paused_and_leases_nobody_holds(
    app: Flowrun, dsn: str, connection: asyncpg.Connection
) -> None:
    app.handler("known", queue="here")(lambda: None)
    async with app:
        await app.dispatch_many([app.job("known", {}, queue="nowhere"), app.job("unknown", {}, queue="here")])
        await app.job("known", {}, queue="held").dispatch()
        await app.queues.pause("held")
        found = await look(dsn)
        assert len([one for one in of(found, "served") if "no worker that lives serves the queue" in one.found]) == 3
        async with app.worker(queues=["here", "held"]):
            found = of(await look(dsn), "served")
            assert sorted((one.found, one.advice) for one in found) == [
                ("nobody serves 1 job(s) of type 'known' in queue 'nowhere': no worker that lives serves the queue 'nowhere'",
                 "flowrun serve: --queue nowhere"),
                ("nobody serves 1 job(s) of type 'unknown' in queue 'here': no worker that lives has a handler of type 'unknown'",
                 "flowrun serve: an app that has it"),
            ]  # fmt: skip
    await connection.execute(
        "insert into flowrun.leases (worker_id, n, jobs, attempts) values ($1, 1, $2, '{1}')", uuid4(), [uuid4()]
    )
    await connection.execute("insert into flowrun.scheduled values ($1, now() - interval '1 hour')", uuid4())
    found = await look(dsn)
    assert of(found, "queues")[0].found == "queue 'held' is paused, with 1 job(s) ready"
    assert "1 job(s) are held by workers that are gone" in of(found, "leases")[0].found
    assert of(found, "timers")[0].found == "1 job(s) are due and not made ready, the oldest since 60 min"


async def test_it_names_who_stands_in_the_way_and_does_not_wait_for_them(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "LONG", 0.0)
    await connection.execute("alter table flowrun.jobs set (autovacuum_enabled = false)")
    async with connection.transaction():
        await connection.execute("lock table flowrun.ready in access exclusive mode")
        found = await look(dsn)
    pid = connection.get_server_pid()
    (lock,) = of(found, "locks")
    assert f"session {pid} of 'flowrun'" in lock.found
    assert "holds AccessExclusiveLock on ready" in lock.found
    assert lock.advice is not None
    assert f"pg_terminate_backend({pid})" in lock.advice
    assert any(f"session {pid}" in one.found and "idle in transaction" in one.found for one in of(found, "horizon"))
    assert "could not be looked at: canceling statement due to lock timeout" in of(found, "work")[0].found
    assert of(await look(dsn), "autovacuum")[0].found == "autovacuum is off for table jobs"


async def test_roles_and_their_settings(dsn: str, connection: asyncpg.Connection) -> None:
    role = f"doctor_{uuid4().hex[:8]}"
    await connection.execute(f"create role {role} login; alter role {role} set default_transaction_read_only = on")
    await connection.execute(f"alter role {role} set statement_timeout = '1s'")
    try:
        theirs = dsn.replace("//flowrun@", f"//{role}@")
        found = await look(theirs)
        assert "read-only for this role" in of(found, "read-only")[0].found
        assert "statement_timeout = 1s" in of(found, "settings")[0].found
        assert "permission denied for schema flowrun" in of(found, "schema")[0].found
        assert [one.level for one in of(found, "horizon")] == ["ok", "note"]
        await connection.execute(
            f"grant usage on schema flowrun to {role}; grant select on flowrun.migrations to {role}"
        )
        found = await look(theirs)
        assert f"role '{role}' lacks select on attempts, insert on attempts" in of(found, "rights")[0].found
        assert any("permission denied" in one.found for one in of(found, "work"))
    finally:
        await connection.execute(f"drop owned by {role}; drop role {role}")


async def test_schemas(dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no flowrun tables; run `flowrun migrate`" in of(await look(dsn, schema="other"), "schema")[0].found
    more = (*migrate.migrations(), Migration(999, "more", "select 1"))
    monkeypatch.setattr(migrate, "migrations", lambda: more)
    assert "this flowrun needs 999" in of(await look(dsn), "schema")[0].found


async def test_poolers(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await look(dsn, pooler=True)
    assert "no pooler answers here" in of(found, "pooler")[0].found
    assert "they poll" in of(found, "listening")[0].found

    async def pooled(_: object) -> bool:
        return True

    async def deaf(*_: object) -> bool:
        return False

    monkeypatch.setattr(doctor.doctor, "is_pooled", pooled)
    monkeypatch.setattr(doctor.doctor, "hears", deaf)
    found = await look(dsn)
    assert "the app is not told so" in of(found, "pooler")[0].found
    assert "did not arrive within 2 s" in of(found, "listening")[0].found


async def test_nobody_there() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"localhost:1/shop") as error:
        await look("postgresql://ann:hunter2@localhost:1/shop")
    assert "hunter2" not in str(error.value)
