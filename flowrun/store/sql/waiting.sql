-- Of some jobs, those that wait: blocked, scheduled, ready, or at a gate.
--   $1 uuid[] jobs
-- Result: id and attempts used so far.
-- Index: jobs_pkey, blocked_pkey, ready_pkey, scheduled_pkey, gates_pkey. Locks: none; the caller holds them.
with target as materialized (
    select j.id, j.queue, j.priority
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
)
select b.id, 0::smallint as attempt from target
cross join lateral (select id from flowrun.blocked where blocked.id = target.id offset 0) b
union all
select r.id, r.attempt from target
cross join lateral (
    select id, attempt from flowrun.ready
    where ready.queue = target.queue and ready.priority = target.priority and ready.id = target.id
    offset 0
) r
union all
select s.id, s.attempt from target
cross join lateral (select id, attempt from flowrun.scheduled where scheduled.id = target.id offset 0) s
union all
select g.id, 1 from target
cross join lateral (select id from flowrun.gates where gates.id = target.id offset 0) g
