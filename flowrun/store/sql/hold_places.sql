-- Hold jobs where they wait to run, until the transaction ends: neither a claim nor the timer takes them away meanwhile.
--   $1 uuid[] jobs
-- Result: the jobs that were found.
-- Index: jobs_pkey, ready_pkey, gates_pkey, scheduled_pkey.
-- Locks: `ready` rows, then those of `gates`, then those of `scheduled`, each by id. Who else takes them passes by what
-- is locked, but for who holds the flow's row (or, of jobs without a flow, for who comes in this very order).
with target as materialized (
    select j.id, j.queue, j.priority
    from (select distinct id from unnest($1::uuid[]) as u (id) order by id) u
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
)
select r.id from target
cross join lateral (
    select id from flowrun.ready
    where ready.queue = target.queue and ready.priority = target.priority and ready.id = target.id
    for update
) r
union all
select g.id from target
cross join lateral (select id from flowrun.gates where gates.id = target.id for update) g
union all
select s.id from target
cross join lateral (select id from flowrun.scheduled where scheduled.id = target.id for update) s
