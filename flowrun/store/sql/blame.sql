-- Which nodes people are told of where one of flowrun's own jobs made another be skipped: for a join, what it was skipped
-- because of; for a flow (its end, or its verdict), the first node that kept it from succeeding, else what it was skipped
-- because of, else the node that ended last.
--   $1 uuid[] jobs
-- Result: of those that are flowrun's own: id, name, and the node (null: there is none).
-- Index: by primary key; finished_spoils; jobs_flow where all went well.
select
    own.id, own.name,
    case
        when own.kind = 2 then f.cause
        else coalesce(
            (
                with recursive bad (id, kind, finished_at) as (
                    select own.flow, 1::smallint, null::timestamptz
                    union all
                    select s.id, j.kind, s.finished_at
                    from bad
                    cross join lateral (
                        select id, finished_at from flowrun.finished where finished.spoils = bad.id offset 0
                    ) s
                    cross join lateral (select kind from flowrun.jobs where jobs.id = s.id offset 0) j
                    where bad.kind = 1
                )
                select id from bad where kind <> 1 order by finished_at, id limit 1
            ),
            f.cause,
            (
                with recursive inside (id) as (
                    select own.flow
                    union all
                    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
                )
                select j.id
                from inside
                join flowrun.jobs j on j.flow_id = inside.id
                cross join lateral (select finished_at from flowrun.finished where finished.id = j.id offset 0) ended
                where
                    j.kind in (0, 3, 4, 5)
                    and not coalesce(j.options ?| array['callback', 'compensates'], false)
                order by ended.finished_at desc, j.id desc
                limit 1
            )
        )
    end as blamed
from (
    select j.id, j.kind, coalesce(j.name, j.type) as name, case when j.kind = 1 then j.id else j.flow_id end as flow
    from (select distinct id from unnest($1::uuid[]) as u (id)) u
    cross join lateral (select id, kind, name, type, flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
    where j.kind in (1, 2, 6)
) own
left join lateral (select cause from flowrun.finished where finished.id = own.id offset 0) f on true
