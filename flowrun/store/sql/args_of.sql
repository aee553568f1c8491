-- Arguments of jobs, to be changed.
--   $1 uuid[] jobs
-- Result: id, kind, args (JSON), and the job because of whose failure it runs, if it does.
-- Index: jobs_pkey. Locks: none; whoever changes them holds the flow or the `finished` rows.
select j.id, j.kind, j.args::text as args, j.options -> 'failure' ->> 'job_id' as failed
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, kind, args, options from flowrun.jobs where jobs.id = u.id offset 0) j
