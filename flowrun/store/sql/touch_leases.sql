-- Which of some jobs stand in a lease; these leases are touched, so that a settle whose snapshot is older than what the
-- caller does next takes the slow way, with a snapshot of its own.
--   $1 uuid[] jobs
-- Result: worker, job, attempt. Some may have ended: a job stays in its lease until the whole lease is spent.
-- Index: none; `leases` has a row for each batch that runs.
-- Locks: the leases, by worker and number; a settle that holds one is waited for.
with held as materialized (
    select worker_id, n from flowrun.leases where jobs && $1::uuid[]
    order by worker_id, n
    for update
),
touched as (
    update flowrun.leases set touched = true
    from held
    where leases.worker_id = held.worker_id and leases.n = held.n
    returning leases.worker_id, leases.jobs, leases.attempts
)
select touched.worker_id, u.id, u.attempt
from touched, unnest(touched.jobs, touched.attempts) as u (id, attempt)
where u.id = any($1)
