-- Take jobs away from where they wait: blocked, scheduled, ready, or at a gate.
--   $1 uuid[] jobs
-- Result: id and attempts used so far of those that were found; what is missing runs or has ended, or has just moved.
-- Locks: `blocked` rows by id, the order every other statement takes them in; then the other rows, which only claims
-- and the timer take, and those pass by what is locked.
with target as materialized (
    select j.id, j.queue, j.priority
    from (select id from unnest($1::uuid[]) as u (id) order by id) u
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
),
waiting as materialized (
    select b.id
    from target
    cross join lateral (select id from flowrun.blocked where blocked.id = target.id for update) b
),
unblocked as (
    delete from flowrun.blocked where id = any(array(select id from waiting)) returning id
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
