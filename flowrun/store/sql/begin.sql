-- The attempt of a job that must not run twice begins, unless its lease is somebody else's by now.
--   $1 uuid worker  $2 bigint its lease  $3 uuid job  $4 smallint attempt
-- Result: one row if it may begin. Sent again after an ambiguous commit it says the same.
-- Index: leases_pkey, begun_pkey.
-- Locks, in this order: the lease, shared (who takes its jobs away waits, or is waited for); the job's row of `begun`.
with held as materialized (
    select from flowrun.leases
    where worker_id = $1 and n = $2 and attempts[array_position(jobs, $3)] = $4
    for key share
)
insert into flowrun.begun (job_id, worker_id, n)
select $3, $1, $2 from held
on conflict (job_id) do update set worker_id = excluded.worker_id, n = excluded.n, begun_at = excluded.begun_at
returning true
