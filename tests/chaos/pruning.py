"""Retention while everything else goes on: what is removed is kept aside by triggers, so that the checker misses nothing."""

from __future__ import annotations

import asyncpg

KEPT = {"succeeded": 12.0, "failed": 40.0, "cancelled": 12.0, "skipped": 12.0}
"""Seconds that things of a run are kept. A dispatch whose answer was lost is sent again within less."""
BRIEF = 6.0
"""Seconds after which operators remove single jobs of the type ``narrow``, whatever their retention."""

TABLES = ("jobs", "finished", "flows", "attempts", "audit")
ARCHIVE = "".join(
    f"""
    create table chaos.gone_{table} as
        select *, clock_timestamp() as gone_at, pg_current_xact_id()::text as gone_by from flowrun.{table} limit 0;
    create function chaos.keep_{table}() returns trigger language plpgsql as $$
    begin
        insert into chaos.gone_{table} select (old).*, clock_timestamp(), pg_current_xact_id()::text;
        return null;
    end $$;
    create trigger keep after delete on flowrun.{table} for each row execute function chaos.keep_{table}();
    """
    for table in TABLES
) + "".join(
    # A job that runs again loses its row in finished; what counts is what it had when it was removed itself.
    f"""
    create view chaos.all_{table} as
        select *, null::timestamptz as gone_at, null::text as gone_by from flowrun.{table}
        union all
        select g.* from (
            select distinct on (id) * from chaos.gone_{table} order by id, gone_at desc
        ) g where not exists (select from flowrun.jobs j where j.id = g.id);
    """
    for table in ("jobs", "finished", "flows")
) + "".join(
    f"""
    create view chaos.all_{table} as
        select * from flowrun.{table} union all select {columns} from chaos.gone_{table};
    """
    for table, columns in (
        ("attempts", "job_id, attempt, worker, started_at, ended_at, error_type, message, traceback, detail"),
        ("audit", "id, flow_id, job_id, verb, actor, reason, detail, done_at"),
    )
)  # fmt: skip

_LAST = """
left join lateral (
    select * from chaos.gone_finished f where f.id = g.id order by gone_at desc limit 1
) f on f.gone_by = g.gone_by
"""
"""What a job that was removed had come to, removed with it."""

OPEN = f"""
select g.id, g.type, g.flow_id, g.gone_at from chaos.gone_jobs g {_LAST}
where f.id is null and g.type <> 'debounced'
"""
"""Removed before it had ended. (A debounced job gives way to the next one.)"""

EARLY = f"""
with ended as (
    select
        g.id, g.kind, g.type, f.outcome, g.gone_at,
        greatest(f.finished_at, (
            select max(inside.finished_at)
            from chaos.gone_flows fl
            join chaos.gone_jobs node on node.flow_id = fl.id and node.gone_by = g.gone_by
            join chaos.gone_finished inside on inside.id = node.id and inside.gone_by = g.gone_by
            where fl.root_id = g.id and fl.gone_by = g.gone_by
        )) as finished_at
    from chaos.gone_jobs g {_LAST}
    where g.flow_id is null and f.id is not null
)
select id, type, outcome, gone_at, finished_at from ended
where gone_at - finished_at < make_interval(secs => case
    when type = 'narrow' and kind = 0 then least($2, ($1::float8[])[outcome]) else ($1::float8[])[outcome] end)
"""
"""Removed sooner than was said, counted from the end of the last job in it."""

PARTS = """
select j.id, j.type, j.flow_id from flowrun.jobs j
where j.flow_id is not null and not exists (select from flowrun.flows fl where fl.id = j.flow_id)
union all
select g.id, g.type, g.flow_id from chaos.gone_jobs g
where g.flow_id is not null and exists (select from flowrun.flows fl where fl.id = g.flow_id)
"""
"""A flow of which a part was removed and a part was not."""

LATE = """
select j.id, j.type, f.outcome, f.finished_at from flowrun.jobs j join flowrun.finished f on f.id = j.id
where j.flow_id is null and f.finished_at < $2::timestamptz - make_interval(secs => 2 + ($1::float8[])[f.outcome])
and not exists (
    select from flowrun.flows fl join flowrun.jobs node on node.flow_id = fl.id
    join flowrun.finished inside on inside.id = node.id
    where fl.root_id = j.id and (
        inside.outcome = 2 or inside.finished_at >= $2::timestamptz - make_interval(secs => 2 + ($1::float8[])[f.outcome])
    )
)
"""
"""Still there after a prune that came later than its time. (Failures inside a flow keep it longer.)"""

SIZES = """
select
    (select count(*) from chaos.gone_jobs g where g.kind = 0), (select count(*) from chaos.gone_flows where id = root_id)
"""


async def broken(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """What was removed that should not have been."""
    kept = list(KEPT.values())
    found = [("retention open", OPEN, ()), ("retention early", EARLY, (kept, BRIEF)), ("retention parts", PARTS, ())]
    return [
        (name, f"removed: {dict(row)}")
        for name, sql, arguments in found
        for row in (await connection.fetch(sql, *arguments))[:20]
    ]


async def left_over(dsn: str) -> list[tuple[str, str]]:
    """At rest, prune; what is due has to be gone."""
    from flowrun import Flowrun

    connection = await asyncpg.connect(dsn, server_settings={"statement_timeout": "0"})
    try:
        moment = await connection.fetchval("select clock_timestamp()")
        async with Flowrun(dsn, pool_size=1) as app:
            await app.prune()
        rows = await connection.fetch(LATE, list(KEPT.values()), moment)
        return [("retention late", f"still there: {dict(row)}") for row in rows[:20]]
    finally:
        await connection.close()


def hurry() -> None:
    """Workers prune all the time, not once a minute."""
    import contextlib

    with contextlib.suppress(ImportError):  # an older version does not prune
        from flowrun.store import prune
        from flowrun.worker import pruner

        pruner.FIRST, pruner.TURN, prune.PASS = 0.2, 0.5, 0.5
