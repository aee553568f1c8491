-- Take jobs away from where they wait: blocked, scheduled, ready, or at a gate.
--   $1 uuid[] jobs
-- Result: id and attempts used so far of those that were found; what is missing runs or has ended, or has just moved.
-- Locks: none but what the caller holds (hold_places.sql, lock_blocked.sql).
with target as materialized (
    select j.id, j.queue, j.priority
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
),
unblocked as (
    delete from flowrun.blocked where id = any($1) returning id
),
unready as (
    delete from flowrun.ready using target
    where ready.queue = target.queue and ready.priority = target.priority and ready.id = target.id
    returning ready.id, ready.attempt
),
unscheduled as (
    delete from flowrun.scheduled where id = any($1) returning id, attempt
),
ungated as (
    delete from flowrun.gates where id = any($1) returning id
)
select id, 0::smallint as attempt from unblocked
union all
select id, attempt from unready
union all
select id, attempt from unscheduled
union all
select id, 1 from ungated
