-- What jobs waited for: their parents, the joins between, and the flows that all of them are in.
--   $1 uuid[] the jobs  $2 uuid[] more parents to show
-- Result: rows tagged `note`: 0 one of the jobs, with its parents (null: not recorded), 1 a parent (of a join also its own
-- parents), 2 a flow: its name, and as `title` what the names of its nodes begin with. A parent of many jobs comes once:
-- its result may be large.
-- Index: jobs_pkey, finished_pkey; for the error of a flow that failed, which is that of the first of its jobs that did,
-- finished_spoils. No edge is read: edges have no index by child, they are written too often for one.
-- Its own statement for the reason that inputs.sql is.
with recursive job as materialized (
    select u.id, j.flow_id, j.parents
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select flow_id, parents from flowrun.jobs where jobs.id = u.id offset 0) j
),
parent (id) as (
    select unnest(parents) from job
    union
    select unnest($2::uuid[])
    union
    select unnest(p.parents)
    from parent
    cross join lateral (select parents from flowrun.jobs where jobs.id = parent.id and kind = 2 offset 0) p
),
shown as materialized (
    select
        p.id, p.flow_id, p.kind, p.name, p.parents, f.outcome, f.finished_at, f.result,
        coalesce(f.error, why.error) as error, f.cause
    from parent
    cross join lateral (
        select id, flow_id, kind, name, case when kind = 2 then parents end as parents
        from flowrun.jobs where jobs.id = parent.id offset 0
    ) p
    left join lateral (select * from flowrun.finished where finished.id = parent.id offset 0) f on true
    left join lateral (
        with recursive failed (id, error) as (
            select p.id, null::jsonb where p.kind = 1 and f.outcome = 2
            union all
            select s.id, s.error
            from failed
            cross join lateral (
                select finished.id, finished.error from flowrun.finished
                where finished.spoils = failed.id and finished.outcome = 2
                order by finished.finished_at
                limit 1
            ) s
            where failed.error is null
        )
        select error || jsonb_build_object('of', id) as error from failed where error is not null
    ) why on true
)
select
    0 as note, id, flow_id, null::smallint as kind, null::text as name, null::text as title, parents,
    null::smallint as outcome, null::timestamptz as finished_at, null::jsonb as result, null::jsonb as error, null::uuid as cause
from job
union all
select 1, id, flow_id, kind, name, null, parents, outcome, finished_at, result, error, cause from shown
union all
select
    2, s.flow_id, null, null, fl.name, case when e.flow_id is null then '' else e.name || '/' end,
    null, null, null, null, null, null
from (select flow_id from job union select flow_id from shown) s
cross join lateral (select name, flow_id from flowrun.jobs where jobs.id = s.flow_id offset 0) e
cross join lateral (select name from flowrun.flows where flows.id = s.flow_id offset 0) fl
