-- The joins that the first nodes of inner flows wait for, where these flows have not begun.
--   $1 uuid[] ends of flows
-- Result: end, the join. A flow that is not cancelled with the one around it begins all the same: left out.
-- Index: jobs_pkey, jobs_flow, finished_pkey.
select e.id, s.id as entrance_id
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, name, flow_id from flowrun.jobs where jobs.id = u.id and flow_id is not null offset 0) e
cross join lateral (
    select id, options from flowrun.jobs
    where jobs.flow_id = e.flow_id and jobs.kind = 2 and jobs.name = e.name || '/(start)'
    offset 0
) s
left join lateral (select id from flowrun.finished where finished.id = s.id offset 0) f on true
where f.id is null and (s.options ? 'stays') is not true
