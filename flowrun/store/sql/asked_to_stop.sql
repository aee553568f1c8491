-- Which jobs of a worker were asked to stop.
--   $1 uuid worker
-- Result: ids; of jobs that have ended meanwhile, too.
-- Index: leases_pkey, and cancels_pkey once for each job that the worker has.
-- Locks: none.
select u.id
from flowrun.leases
cross join lateral unnest(leases.jobs) as u (id)
cross join lateral (select from flowrun.cancels where cancels.id = u.id offset 0) asked
where leases.worker_id = $1
