-- The flows that some jobs are nodes of.
--   $1 uuid[] jobs
-- Result: job, flow; of those alone, none.
select j.id, j.flow_id
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
where j.flow_id is not null
