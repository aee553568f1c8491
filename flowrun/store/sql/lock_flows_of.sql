-- The outermost flows of some jobs, locked as by lock_flows.sql; and of some flows.
--   $1 uuid[] jobs (ends among them stand for the flows they end)  $2 uuid[] flows
-- Index: jobs_pkey, flows_pkey.
-- Locks: `flows` rows by id.
with roots as (
    select fl.root_id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select coalesce(flow_id, id) as flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
    cross join lateral (select root_id from flowrun.flows where flows.id = j.flow_id offset 0) fl
    union
    select fl.root_id
    from unnest($2::uuid[]) as u (id)
    cross join lateral (select root_id from flowrun.flows where flows.id = u.id offset 0) fl
)
select id from flowrun.flows where id in (select root_id from roots) order by id for no key update
