-- As insert_jobs.sql, by a process that has a worker with consumers to spare: some of the jobs go straight into a lease
-- of that worker. So they are stored and claimed in one commit, and run without having been `ready`.
--   $1 uuid[] id  $2 text[] queue  $3 text[] type  $4 text[] args (JSON)  $5 smallint[] priority  $6 boolean[] optional
--   $7 float8[] delay  $8 timestamptz[] run_at  $9 text[] options (JSON)
--   $10 uuid worker  $11 bigint number of its lease  $12 uuid[] the jobs to take, which wait for no moment
--   $13 integer changes of queues the worker knows of
-- Result: the jobs taken, as a claim brings them; none when the worker was given up, or when a queue was changed and it
-- does not know yet. What is not taken is ready.
-- Locks: only what it inserts. Sent again after an ambiguous commit it changes nothing, and brings nothing: the lease is
-- given back first then (void_leases.sql).
with here as materialized (
    select from flowrun.workers where workers.id = $10 and workers.changes = $13
),
new as (
    insert into flowrun.jobs (id, queue, type, args, priority, optional, delay, run_at, options)
    select u.id, u.queue, u.type, u.args::jsonb, u.priority, u.optional, u.delay, u.run_at, u.options::jsonb
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::float8[], $8::timestamptz[],
        $9::text[]
    ) as u (id, queue, type, args, priority, optional, delay, run_at, options)
    on conflict (id) do nothing
    returning id, flow_id, kind, name, queue, type, args, sources, bindings, priority, options, delay, run_at
),
taken as materialized (
    select * from new
    where id = any($12) and exists (select from here)
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $10, $11, clock_timestamp(), array_agg(id), array_agg(1::smallint) from taken
    having count(*) > 0
),
timed as (
    insert into flowrun.scheduled (id, run_at)
    select id, greatest(now() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at) from new
    where delay is not null or run_at is not null
),
now_ready as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from new
    where delay is null and run_at is null and new.id not in (select taken.id from taken)
)
select id, 1::smallint as attempt, flow_id, kind, name, queue, type, args, sources, bindings, priority, options
from taken
