-- What closes the flow of each of some jobs: its end, or, of an outermost flow with compensations, its verdict.
--   $1 uuid[] jobs
-- Result: job, end or verdict; jobs without a flow give no row.
-- Index: jobs_pkey; edges_pkey by the first parent of the end is not possible, so the verdict's id is kept with the end.
select j.id, coalesce((substring(e.options ->> 'verdict' from '^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'))::uuid, e.id)
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
cross join lateral (select id, options from flowrun.jobs where jobs.id = j.flow_id offset 0) e
