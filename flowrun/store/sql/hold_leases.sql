-- Hold the leases in which some jobs stand, and touch them, so that a settle whose snapshot is older than what the caller
-- does next takes the slow way, with a snapshot of its own; and hold leases that the caller settles itself.
--   $1 uuid[] jobs  $2 uuid worker (null: none) and $3 bigint[] its leases (null: all)
-- Result: the jobs that stand in a lease. Some may have ended: a job stays in its lease until the whole lease is spent.
-- Index: none; `leases` has a row for each batch that runs.
-- Locks: the leases, by worker and number; a settle that holds one is waited for. The result is read from all that `held`
-- finds: a join that could do without it (no job stands in a lease) would leave the caller's own leases unlocked.
with held as materialized (
    select worker_id, n from flowrun.leases
    where jobs && $1::uuid[] or (worker_id = $2 and ($3::bigint[] is null or n = any($3)))
    order by worker_id, n
    for update
),
touched as (
    update flowrun.leases set touched = true
    from held
    where leases.worker_id = held.worker_id and leases.n = held.n and leases.jobs && $1::uuid[]
    returning leases.worker_id, leases.n, leases.jobs
)
select u.id
from held
left join touched on touched.worker_id = held.worker_id and touched.n = held.n
cross join lateral unnest(touched.jobs) as u (id)
where u.id = any($1)
