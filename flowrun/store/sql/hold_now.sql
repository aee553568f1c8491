-- Hold jobs wherever they stand, and counters, without waiting: for who holds counters already, which come last in order.
--   $1 uuid[] jobs, as in hold_places.sql, hold_leases.sql and lock_blocked.sql  $2 uuid[] jobs of which only the counter
-- Result: id, and whether it is held in one of the places it was seen in (false: somebody has it, or it has just moved).
-- Index: jobs_pkey, ready_pkey, gates_pkey, scheduled_pkey, blocked_pkey; of `leases` none.
-- Locks: what it finds, skipping what is locked. It never waits, so its order does not matter.
with target as materialized (
    select j.id, j.queue, j.priority
    from (select distinct id from unnest($1::uuid[]) as u (id)) u
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
),
lease as materialized (
    select l.worker_id, l.n, coalesce(h.jobs, l.jobs) as jobs, h.jobs is not null as held
    from (select worker_id, n, jobs from flowrun.leases where jobs && $1::uuid[]) l
    left join lateral (
        select jobs from flowrun.leases where leases.worker_id = l.worker_id and leases.n = l.n for update skip locked
    ) h on true
),
touched as (
    update flowrun.leases set touched = true
    from lease
    where leases.worker_id = lease.worker_id and leases.n = lease.n and lease.held
)
select target.id, r.id is not null as held
from target
cross join lateral (
    select id, queue, priority from flowrun.ready
    where ready.queue = target.queue and ready.priority = target.priority and ready.id = target.id
    offset 0
) seen
left join lateral (
    select id from flowrun.ready
    where ready.queue = seen.queue and ready.priority = seen.priority and ready.id = seen.id
    for update skip locked
) r on true
union all
select target.id, g.id is not null
from target
cross join lateral (select id from flowrun.gates where gates.id = target.id offset 0) seen
left join lateral (select id from flowrun.gates where gates.id = seen.id for update skip locked) g on true
union all
select target.id, s.id is not null
from target
cross join lateral (select id from flowrun.scheduled where scheduled.id = target.id offset 0) seen
left join lateral (select id from flowrun.scheduled where scheduled.id = seen.id for update skip locked) s on true
union all
select u.id, lease.held
from lease, unnest(lease.jobs) as u (id)
where u.id = any($1)
union all
select seen.id, b.id is not null
from (select distinct id from unnest($1::uuid[] || $2::uuid[]) as u (id)) u
cross join lateral (select id from flowrun.blocked where blocked.id = u.id offset 0) seen
left join lateral (select id from flowrun.blocked where blocked.id = seen.id for update skip locked) b on true
