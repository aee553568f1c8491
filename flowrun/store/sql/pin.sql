-- Hold jobs where they wait, until the transaction ends: no claim, no timer and no settle takes them away meanwhile.
--   $1 uuid[] jobs
-- Locks: `blocked` rows by id, then `ready` and `scheduled` rows, by id.
with target as materialized (
    select j.id, j.queue, j.priority
    from (select id from unnest($1::uuid[]) as u (id) order by id) u
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
),
waiting as materialized (
    select b.id from target
    cross join lateral (select id from flowrun.blocked where blocked.id = target.id for update) b
),
queued as materialized (
    select r.id, r.attempt from target
    cross join lateral (
        select id, attempt from flowrun.ready
        where ready.queue = target.queue and ready.priority = target.priority and ready.id = target.id
        for update
    ) r
),
gated as materialized (
    select g.id from target
    cross join lateral (select id from flowrun.gates where gates.id = target.id for update) g
),
timed as materialized (
    select s.id, s.attempt from target
    cross join lateral (select id, attempt from flowrun.scheduled where scheduled.id = target.id for update) s
)
select id, 0::smallint as attempt from waiting
union all
select id, attempt from queued
union all
select id, attempt from timed
union all
select id, 1 from gated
