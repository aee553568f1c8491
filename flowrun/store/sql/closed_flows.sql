-- Of some outermost flows, which are locked, those of which nothing is open and which are kept no longer: counted from
-- the last end of any job in them, and as long as a job that failed in them, and stands in the dead letter, is kept.
--   $1 uuid[] flows  $2 float8 seconds ago that they ended, whatever their retention; null: as their retention says
-- Result: id, how many jobs.
-- Index: flows_root, jobs_flow, jobs_pkey, finished_pkey, retention_pkey. Locks: none.
with part as materialized (
    select u.id as root_id, j.id, j.kind, j.type, j.queue
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id from flowrun.flows where flows.root_id = u.id offset 0) f
    cross join lateral (select id, kind, type, queue from flowrun.jobs where jobs.flow_id = f.id offset 0) j
    union all
    select u.id, u.id, 1, null, null from unnest($1::uuid[]) as u (id)
),
flow as materialized (
    select j.id, j.options -> 'retention' as own, fl.name, f.outcome
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id, options from flowrun.jobs where jobs.id = u.id offset 0) j
    cross join lateral (select name from flowrun.flows where flows.id = u.id offset 0) fl
    cross join lateral (select outcome from flowrun.finished where finished.id = u.id offset 0) f
),
ended as materialized (
    select
        part.root_id, count(*) as jobs, count(f.id) as over, max(f.finished_at) as finished_at,
        max(
            case when f.dead and part.kind = 0 and $2::float8 is null then coalesce(
                case jsonb_typeof(flow.own)
                    when 'object' then (substring(flow.own ->> 'failed' from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8 else (substring(flow.own #>> '{}' from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8
                end,
                (select seconds from flowrun.retention where scope = 'type' and name = part.type and outcome = 2),
                (
                    select seconds from flowrun.retention
                    where scope = 'queue' and name = split_part(part.queue, chr(31), 1) and outcome = 2
                ),
                (select seconds from flowrun.retention where scope = 'flow' and name = flow.name and outcome = 2),
                (select seconds from flowrun.retention where scope = 'all' and name = '' and outcome = 2)
            ) end
        ) as dead,
        bool_or(part.id in (select unnest(jobs) from flowrun.leases)) as leased
    from part
    join flow on flow.id = part.root_id
    left join lateral (
        select id, finished_at, outcome = 2 and (error ->> 'discarded') is null as dead
        from flowrun.finished where finished.id = part.id
        offset 0
    ) f on true
    group by part.root_id
)
select ended.root_id, ended.jobs
from ended
join flow on flow.id = ended.root_id
where
    ended.jobs = ended.over
    and not ended.leased
    and extract(epoch from clock_timestamp() - ended.finished_at) >= coalesce(
        $2,
        greatest(
            coalesce(
                case jsonb_typeof(flow.own)
                    when 'object' then
                        (substring(flow.own ->> (array['succeeded', 'failed', 'cancelled', 'skipped'])[flow.outcome] from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8
                    else (substring(flow.own #>> '{}' from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8
                end,
                (select seconds from flowrun.retention where scope = 'flow' and name = flow.name and outcome = flow.outcome),
                (select seconds from flowrun.retention where scope = 'all' and name = '' and outcome = flow.outcome)
            ),
            ended.dead
        )
    )
order by ended.root_id
