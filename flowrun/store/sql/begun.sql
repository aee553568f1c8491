-- Of jobs that were taken out of leases of a worker, those that must not run twice and had begun there.
--   $1 uuid worker  $2 uuid[] job  $3 bigint[] its lease
-- Result: job.
-- Index: begun_pkey, job by job.
-- Locks: none. The leases are held, so nothing of them begins meanwhile.
select u.id
from unnest($2::uuid[], $3::bigint[]) as u (id, n)
cross join lateral (select worker_id, n from flowrun.begun where job_id = u.id offset 0) b
where b.worker_id = $1 and b.n = u.n
