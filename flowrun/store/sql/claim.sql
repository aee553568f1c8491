-- Take up to $3 jobs out of `ready` into one lease.
--   $1 uuid worker  $2 bigint lease number  $3 integer limit  $4 text[] types this worker can run
--   $5 text[] queues, in this turn's order  $6 smallint[] priority and $7 uuid[] id of the low-water mark, queue by queue
--   $8 integer changes of queues the worker knows of
-- Result: the jobs' definitions, most urgent first within each queue; none when the worker was given up,
-- or when a queue was changed and the worker does not know yet.
-- Index: ready_pkey from the low-water mark on. Deleted rows stay in the index while any snapshot is older than their
-- deletion; starting at the mark instead of the head skips them (without it: 54,000 -> 14,000 jobs/s after 80,000 claims).
-- Locks: `ready` rows, skipping locked ones, so it never waits. Deleting by ctid is safe because ready rows are never
-- updated; joining the deleted rows back by key did 19,000 jobs/s where this does 114,000.
with taken as (
    delete from flowrun.ready
    where ctid = any(array(
        select r.ctid
        from unnest($5::text[], $6::smallint[], $7::uuid[]) as q (queue, priority, id)
        cross join lateral (
            select ready.ctid
            from flowrun.ready
            where ready.queue = q.queue and (ready.priority, ready.id) > (q.priority, q.id) and ready.type = any($4)
            order by ready.priority, ready.id
            limit $3
            for update skip locked
        ) r
        where exists (select from flowrun.workers where id = $1 and changes = $8)
        limit $3
    ))
    returning ready.id, ready.queue, ready.priority, (least(ready.attempt, 32766::smallint) + 1)::smallint as attempt
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, $2, clock_timestamp(), array_agg(id), array_agg(attempt) from taken
    having count(*) > 0
)
select
    j.id, taken.attempt, j.flow_id, j.kind, j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority, j.options
from taken
cross join lateral (select * from flowrun.jobs where jobs.id = taken.id offset 0) j
order by taken.queue, taken.priority, taken.id
