-- One job that is ready at once, without a flow, straight into a lease of a worker of this process: insert_taken.sql for
-- who dispatches one by one, as insert_job.sql is insert_jobs.sql.
--   $1 uuid id  $2 text queue  $3 text type  $4 text args (JSON)  $5 smallint priority  $6 boolean optional
--   $7 text options (JSON)
--   $8 uuid worker  $9 bigint number of its lease  $10 integer changes of queues the worker knows of
-- Result: the job, as a claim brings it; nothing when the worker was given up, or when a queue was changed and it does
-- not know yet: then the job is ready.
-- Locks: only what it inserts. Sent again after an ambiguous commit it changes nothing, and brings nothing: the lease is
-- given back first then (void_leases.sql).
with new as (
    insert into flowrun.jobs (id, queue, type, args, priority, optional, options)
    values ($1, $2, $3, $4::text::jsonb, $5, $6, $7::text::jsonb)
    on conflict (id) do nothing
    returning id, flow_id, kind, name, queue, type, args, sources, bindings, priority, options
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select workers.id, $9, clock_timestamp(), array[new.id], array[1::smallint]
    from new
    cross join flowrun.workers
    where workers.id = $8 and workers.changes = $10
    returning n
),
now_ready as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from new
    where not exists (select from lease)
)
select id, 1::smallint as attempt, flow_id, kind, name, queue, type, args, sources, bindings, priority, options
from new
where exists (select from lease)
