-- Of some jobs and flows, those that have not ended. (The job that ends a flow has the flow's id.)
--   $1 uuid[] job or flow
-- Index: jobs_pkey, finished_pkey. Locks: none.
select u.id from unnest($1::uuid[]) as u (id)
where
    (select true from flowrun.jobs where jobs.id = u.id)
    and (select true from flowrun.finished where finished.id = u.id) is null
