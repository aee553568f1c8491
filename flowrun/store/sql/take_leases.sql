-- Leases of a worker, taken away from it. What is unfinished in them is looked up by the next statement: it needs a
-- snapshot from after this one's locks.
--   $1 uuid worker  $2 bigint[] only these lease numbers, whose rows stay, empty (see void_leases.sql); null for all
-- Slots that are held as long as the row stands, with jobs or without, are free.
-- Result: job, attempt, claimed_at, the number of its lease.
-- Locks: the leases by number; a settle that holds one is waited for.
with held as materialized (
    select n, jobs, attempts, claimed_at from flowrun.leases
    where worker_id = $1 and ($2::bigint[] is null or n = any($2))
    order by n
    for update
),
gone as (
    delete from flowrun.leases where worker_id = $1 and $2 is null and n = any(array(select n from held))
),
emptied as (
    update flowrun.leases set jobs = '{}', attempts = '{}' where worker_id = $1 and n = any($2)
),
freed as (
    delete from flowrun.slots where worker_id = $1 and n = any($2) and most is not null
)
select u.id, greatest(coalesce(u.attempt, 1), 1)::smallint as attempt, held.claimed_at, held.n
from held, unnest(held.jobs, held.attempts) as u (id, attempt)
where u.id is not null
