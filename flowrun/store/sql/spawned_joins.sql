-- The joins that stand for jobs and what they spawned.
--   $1 uuid[] jobs
-- Result: the job, the condition on which the join waits for what was spawned, the join.
-- Index: jobs_pkey, jobs_flow.
select u.id, (j.args ->> 'on')::smallint as condition, j.id as join_id
from unnest($1::uuid[]) as u (id)
cross join lateral (select flow_id from flowrun.jobs where jobs.id = u.id offset 0) spawner
cross join lateral (
    select id, args from flowrun.jobs
    where jobs.flow_id = spawner.flow_id and jobs.kind = 2 and jobs.args ->> 'of' = u.id::text
    offset 0
) j
