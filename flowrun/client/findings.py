"""What a doctor makes of what was seen: from rows to sentences. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]

OLDEST = 140_000
"""The first version of PostgreSQL that flowrun works with."""
LONG = 300.0
"""Seconds after which a transaction is long."""
SKEW = 2.0
"""Seconds that clocks may differ by."""
HOT = ("ready", "leases", "blocked", "scheduled")
"""Tables whose rows come and go."""
DEAD = 50_000
"""Dead rows from which on a table is looked at closely."""
BULKY = 256 * 1024 * 1024
"""Bytes that a nearly empty hot table should not have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at: ``server``, ``schema``, ``rights``, ``pooler``..."""
    level: Literal["ok", "note", "wrong"]
    """``note``: worth knowing. ``wrong``: something does not work, or will not for long."""
    found: str
    """What was seen, in a sentence."""
    advice: str | None = None
    """What to do about it."""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def note(check: str, found: str, advice: str | None = None) -> Finding:
    """Worth knowing."""
    return Finding(check, "note", found, advice)


def wrong(check: str, found: str, advice: str) -> Finding:
    """Something to mend."""
    return Finding(check, "wrong", found, advice)


def of_server(row: Row, skew: float) -> list[Finding]:
    """Version, disk, clock, connections, notifications."""
    version, major = row["version"], row["version"] // 10_000
    found = [
        ok("server", f"PostgreSQL {major}.{version % 100}")
        if version >= OLDEST
        else wrong("server", f"PostgreSQL {major} is too old", f"upgrade the server to {OLDEST // 10_000} or newer")
    ]
    if row["recovery"] or row["read_only"]:
        what = "is a standby" if row["recovery"] else "is read-only for this role"
        found.append(
            wrong(
                "read-only", f"the server {what}: nothing can be dispatched or run",
                "point the DSN at the primary (several hosts and target_session_attrs=primary find it), or take back "
                "default_transaction_read_only",
            )
        )  # fmt: skip
    found += _of_disk(row)
    if abs(skew) > SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        found.append(
            wrong(
                "clock", f"this machine's clock is {abs(skew):.1f} s {direction} the server's",
                "set both by NTP; delays and leases count by the server's clock",
            )
        )  # fmt: skip
    else:
        found.append(ok("clock", f"this machine and the server differ by {abs(skew):.2f} s"))
    found += _of_connections(row)
    if row["notifications"] > 0.1:
        found.append(
            wrong(
                "notifications", f"the queue of notifications is {row['notifications']:.0%} full",
                "a session that listens is stuck in a transaction: end it (see horizon); at 100 % every dispatch fails",
            )
        )  # fmt: skip
    return found


def _of_disk(row: Row) -> Iterable[Finding]:
    for name in ("fsync", "full_page_writes"):
        if not row[name]:
            yield wrong(
                "disk", f"{name} is off: a crash of the machine can destroy the database",
                f"set {name} = on, unless everything in it may be lost",
            )  # fmt: skip
    if row["synchronous_commit"] == "off":
        yield wrong(
            "disk", "synchronous_commit is off for this role: a crash loses the last dispatches and results",
            "alter role ... reset synchronous_commit (flowrun turns it off itself where nothing can be lost by it)",
        )  # fmt: skip
    if not row["autovacuum"]:
        yield wrong(
            "autovacuum", "autovacuum is off on this server: queue tables grow and claims become slow",
            "set autovacuum = on and track_counts = on",
        )  # fmt: skip


def _of_connections(row: Row) -> Iterable[Finding]:
    for what, used, most in (
        ("the server has", row["sessions"], row["sessions_most"]),
        ("this database has", row["here"], row["here_most"]),
        (f"role {row['role']!r} has", row["mine"], row["mine_most"]),
    ):
        if most >= 0 and used >= 0.9 * most:
            yield wrong(
                "connections", f"{what} {used} of {most} connections in use",
                "raise the limit, lower pool_size, run fewer workers (4 connections each and a pool), or use a pooler",
            )  # fmt: skip
    yield ok("connections", f"{row['sessions']} of {row['sessions_most']} connections in use")


def of_settings(rows: Sequence[Row], *, pooled: bool) -> list[Finding]:
    """What was set for the role or the database, and counts where flowrun cannot set its own: through a pooler."""
    given = {row["name"]: row["value"] for row in rows}
    found = []
    for name, harm in (
        ("statement_timeout", "large flows and prunes may be cancelled"),
        ("lock_timeout", "what waits for a lock is given up and sent again"),
        ("idle_in_transaction_session_timeout", "a slow transaction is cut off"),
        ("idle_session_timeout", "connections that listen are cut off"),
        ("default_transaction_isolation", "only read committed works"),
    ):
        value = given.get(name)
        if value is None or value in ("0", "read committed"):
            continue
        found.append(
            wrong(
                "settings", f"{name} = {value} is set for this role or database, and counts through a pooler: {harm}",
                f"alter role ... set {name} = " + ("'read committed'" if "isolation" in name else "0"),
            )
            if pooled
            else note("settings", f"{name} = {value} is set for this role or database; flowrun sets its own")
        )  # fmt: skip
    return found


def of_rights(rows: Sequence[Row], role: str, *, superuser: bool) -> list[Finding]:
    """What the role may do."""
    if superuser:
        return [
            note(
                "rights", f"{role!r} is a superuser: more than any worker needs",
                "`flowrun roles` prints SQL for roles that may do just what they have to",
            )
        ]  # fmt: skip
    tables = {row["name"]: row for row in rows}
    if not tables:
        advice = "grant it a role of `flowrun roles`"
        return [wrong("rights", f"role {role!r} may not look into the schema", advice)]
    missing = [
        f"{verb} on {name}" for name, row in tables.items() for verb in _needed(name, view=row["view"]) if not row[verb]
    ]
    if not missing:
        return [ok("rights", f"role {role!r} may do all that a worker does")]
    if any(row["dispatches"] for row in rows):
        return [note("rights", f"role {role!r} may dispatch, and is no worker's: it lacks {_some(missing)}")]
    if "job_status" in tables and tables["job_status"]["sees"]:
        return [note("rights", f"role {role!r} may look, and neither dispatch nor work: it lacks {_some(missing)}")]
    return [wrong("rights", f"role {role!r} lacks {_some(missing)}", "grant it a role of `flowrun roles`")]


def _needed(table: str, *, view: bool) -> tuple[str, ...]:
    """What a worker does to a table."""
    if view or table == "migrations":
        return ("select",)
    return ("select", "insert", "delete") if table == "audit" else ("select", "insert", "update", "delete")


def of_horizon(rows: Sequence[Row], *, sees_all: bool) -> list[Finding]:
    """Old snapshots: while one is open, dead rows stay and every claim walks past them."""
    found = []
    for row in rows:
        lasted = "" if row["seconds"] is None else f" for {words(row['seconds'])}"
        if row["what"] == "session":
            who = f"session {row['name']} of {row['role']!r} ({row['application'] or 'unnamed'})"
            said = f", last statement: {' '.join(row['statement'].split())}" if row["statement"] else ""
            advice = f"end it: select pg_terminate_backend({row['name']}); set idle_in_transaction_session_timeout"
            found.append(wrong("horizon", f"{who} has had a transaction open{lasted} ({row['state']}){said}", advice))
        elif row["what"] == "prepared":
            who = f"the prepared transaction {row['name']!r} of {row['role']!r} is open{lasted}"
            found.append(wrong("horizon", who, f"commit prepared or rollback prepared {row['name']!r}"))
        else:
            who = f"the replication slot {row['name']!r} is {row['state']} and holds old rows"
            found.append(wrong("horizon", who, "start its consumer, or drop it: pg_drop_replication_slot"))
    if not found:
        found.append(ok("horizon", f"no transaction is older than {words(LONG)}"))
    if not sees_all:
        found.append(
            note(
                "horizon", "this role does not see the transactions of others",
                "grant pg_read_all_stats to it, or run the doctor as a role that has it",
            )
        )  # fmt: skip
    return found


def of_locks(rows: Sequence[Row]) -> list[Finding]:
    """Locks on flowrun's tables that keep its statements waiting."""
    return [
        wrong(
            "locks",
            f"session {row['pid']} of {row['role']!r} ({row['application'] or 'unnamed'}) "
            f"{'holds' if row['granted'] else 'waits for'} {row['mode']} on {row['table']}"
            + ("" if row["seconds"] is None else f", for {words(row['seconds'])}")
            + (f": {' '.join(row['statement'].split())}" if row["statement"] else ""),
            f"let it end, or end it: select pg_terminate_backend({row['pid']})"
            if row["granted"]
            else "everybody after it waits too: set lock_timeout where tables are altered",
        )
        for row in rows
    ]


def of_tables(rows: Sequence[Row]) -> list[Finding]:
    """Whether dead rows are removed from the tables whose rows come and go."""
    found = []
    for row in rows:
        name, live, dead = row["name"], row["live"], row["dead"]
        if not row["cleaned"]:
            advice = f"alter table ... {name} reset (autovacuum_enabled)"
            found.append(wrong("autovacuum", f"autovacuum is off for table {name}", advice))
        if name not in HOT:
            continue
        if dead > DEAD and dead > 4 * live:
            when = "never" if row["vacuumed_at"] is None else f"last at {row['vacuumed_at']:%Y-%m-%d %H:%M:%S %Z}"
            advice = f"look at the checks horizon and autovacuum, then: vacuum {name}"
            found.append(wrong("bloat", f"{name} has {dead:,} dead rows beside {live:,}; vacuumed {when}", advice))
        bulk = row["table_bytes"] + row["index_bytes"]
        if bulk > BULKY and bulk > 2000 * max(live, 1):
            said = f"{name} takes {bulk / 1024 / 1024:,.0f} MiB for {live:,} rows"
            advice = f"reindex table concurrently {name}; vacuum (full) {name} when no worker runs"
            found.append(wrong("bloat", said, advice))
    return found or [ok("bloat", "the hot tables are clean")]


def of_work(row: Row, unserved: Sequence[Row], *, looked: int) -> list[Finding]:
    """Who works, and what is left lying."""
    found = []
    alive = row["alive"]
    if row["lost"] and not alive:
        advice = "start a worker: the first thing it does is to make them ready again"
        found.append(wrong("leases", f"{row['lost']} job(s) are held by workers that are gone, and none lives", advice))
    elif row["gone"] and (row["since"] or 0) > 120:
        since = words(row["since"])
        advice = "look at the log of the workers that live: they should have taken its jobs"
        found.append(wrong("leases", f"{row['gone']} worker(s) are gone for {since} and were not given up", advice))
    if row["overdue"] and (row["overdue_since"] or 0) > 60:
        said = f"{row['overdue']} job(s) are due and not made ready, the oldest since {words(row['overdue_since'])}"
        found.append(wrong("timers", said, "start a worker" if not alive else "look at the log of the workers"))
    for one in unserved:
        if not one["served"]:
            why, advice = f"no worker that lives serves the queue {one['queue']!r}", f"--queue {one['queue']}"
        elif not one["known"]:
            why, advice = f"no worker that lives has a handler of type {one['type']!r}", "an app that has it"
        else:
            why, advice = "no worker that lives does both", f"an app that has the handler, with --queue {one['queue']}"
        said = f"nobody serves {one['jobs']} job(s) of type {one['type']!r} in queue {one['queue']!r}: {why}"
        found.append(wrong("served", said, f"flowrun serve: {advice}"))
    if not alive and not unserved:
        found.append(note("workers", "no worker lives, and nothing is ready", "flowrun serve MODULE:APP"))
    elif alive:
        found.append(ok("workers", f"{alive} worker(s) live"))
    if not unserved:
        found.append(ok("served", f"whatever is ready has its workers (looked at no more than {looked:,} jobs)"))
    return found


def of_trouble(rows: Iterable[tuple[str, str, str]]) -> list[Finding]:
    """What workers complain of: (worker, kind, in words)."""
    advice = {
        "handler": "let it end when it is cancelled: `except asyncio.CancelledError` has to raise it again",
        "thread": "no thread can be interrupted: give what it calls a timeout, or use process=True",
        "loop": "what computes for long belongs into a plain def, or process=True",
        "task": "await what the handler starts",
        "database": "look at the server's log and the worker's; it goes on by itself when the database lets it",
        "end": "cancel only what the handler itself has started, and stop no loop that is not its own",
    }
    return [
        (note if kind == "task" else wrong)("trouble", f"worker {worker}: {said}", advice[kind])
        for worker, kind, said in rows
    ]


def of_queues(rows: Iterable[tuple[str, bool, int | None, int, int]]) -> list[Finding]:
    """Queues that are held up on purpose: (name, paused, at once, ready, running)."""
    found = []
    for name, paused, most, ready, running in rows:
        if paused:
            advice = f"flowrun queues resume {name}"
            found.append(note("queues", f"queue {name!r} is paused, with {ready} job(s) ready", advice))
        elif most is not None and running >= most and ready:
            said = f"queue {name!r} is at its limit: {running} of {most} run, {ready} are ready"
            found.append(note("queues", said))
    return found


def of_types(rows: Iterable[tuple[str, int]]) -> list[Finding]:
    """Types that are paused: (name, ready)."""
    return [
        note("queues", f"type {name!r} is paused, with {ready} job(s) ready", f"flowrun types resume {name}")
        for name, ready in rows
    ]


def words(seconds: float) -> str:
    """A stretch of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _some(items: Sequence[str]) -> str:
    rest = len(items) - 5
    return ", ".join(items[:5]) + (f" and {rest} more" if rest > 0 else "")


def of_schedules(rows: Iterable[Row]) -> list[Finding]:
    """Schedules that do not tick, and those whose jobs nobody would run."""
    found = []
    for row in rows:
        key = row["key"]
        if row["paused"]:
            found.append(note("schedules", f"schedule {key!r} is paused", f"flowrun schedules resume {key}"))
            continue
        if row["waits_for"] is None and (row["late"] or 0) > 60:
            advice = "look at the log of the workers: can they read it?" if row["alive"] else "start a worker"
            found.append(wrong("schedules", f"a tick of schedule {key!r} is due since {words(row['late'])}", advice))
        if row["alive"]:
            found += [
                note("schedules", f"nobody serves jobs of type {type!r} in queue {queue!r}, of schedule {key!r}",
                     f"flowrun serve: an app that has the handler, or flowrun schedules remove {key}")
                for type, queue in row["unserved"]
            ]  # fmt: skip
    return found
