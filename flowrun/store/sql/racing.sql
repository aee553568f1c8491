-- What the end of some jobs may cancel: those they race with, and the other items of a map.
--   $1 uuid[] jobs that end  $2 uuid[] of these, those that fail
-- Result: the flow of the one that ends, which is to be locked, and a job that has not ended.
-- Index: edges_pkey, jobs_pkey, finished_pkey. Reads only.
with rival as (
    select j.flow_id, r.id::uuid as id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (
        select test from flowrun.edges where edges.parent_id = u.id and condition >= 5 and test ? 'rivals' offset 0
    ) e
    cross join lateral jsonb_array_elements_text(e.test -> 'rivals') as r (id)
    cross join lateral (select flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
),
map as (
    select distinct m.id
    from unnest($2::uuid[]) as u (id)
    cross join lateral (select child_id from flowrun.edges where edges.parent_id = u.id and condition = 2 offset 0) e
    cross join lateral (
        select id from flowrun.jobs
        where jobs.id = e.child_id and kind = 5 and args ->> 'on_error' = 'cancel_siblings' and bindings = '[]'
        offset 0
    ) m
),
concerned as (
    select flow_id, id from rival
    union
    select j.flow_id, s.id
    from map
    cross join lateral (select flow_id, sources from flowrun.jobs where jobs.id = map.id offset 0) j
    cross join lateral unnest(j.sources) as s (id)
)
select concerned.flow_id, concerned.id
from concerned
left join lateral (select id from flowrun.finished where finished.id = concerned.id offset 0) f on true
where f.id is null
