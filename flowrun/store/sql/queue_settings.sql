-- What is known of the queues and the types, and how many changes this is the state after, as claims have to say.
--   $1 uuid worker
-- Result: changes, name (null: nothing is known of any), concurrency, rate_jobs, rate_seconds, paused, and the
-- types that are paused (in each row the same); no row when the worker was given up.
-- Locks: none.
select w.changes, q.name, q.concurrency, q.rate_jobs, q.rate_seconds, q.paused,
    (select array_agg(name) from flowrun.types where paused) as types
from flowrun.workers w
left join flowrun.queues q on true
where w.id = $1
