-- Remove single jobs and outermost flows, all or nothing of each, of which no job was claimed, has ended or has used an
-- attempt: all their jobs stand in `ready`, `scheduled` (no attempts) or `blocked`.
--   $1 uuid[] jobs and flows
-- Result: the ids of those that were removed.
-- Index: jobs_pkey, flows_root, jobs_flow, ready_pkey, scheduled_pkey, blocked_pkey, edges_pkey.
-- Locks: `scheduled`, then `ready`, then `blocked` rows, each by id; a claim that is under way is waited for (it deletes
-- the row), a later one skips what is locked here. A job that moves from `scheduled` to `ready` meanwhile is found in
-- neither: the caller looks twice. Deleting by ctid is safe because ready rows are never updated.
with part as materialized (
    select j.id, j.queue, j.priority, u.id as whole
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
    union all
    select j.id, j.queue, j.priority, u.id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id from flowrun.flows where flows.root_id = u.id offset 0) f
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.flow_id = f.id offset 0) j
),
timed as materialized (
    select s.id
    from (select id from part order by id) p
    cross join lateral (select id from flowrun.scheduled where id = p.id and attempt = 0 for update) s
),
now_ready as materialized (
    select r.id, r.place
    from (select id, queue, priority from part order by id) p
    cross join lateral (
        select id, ready.ctid as place from flowrun.ready
        where queue = p.queue and priority = p.priority and ready.id = p.id and attempt = 0
        for update
    ) r
),
waiting as materialized (
    select b.id
    from (select id from part order by id) p
    cross join lateral (select id from flowrun.blocked where blocked.id = p.id for update) b
),
unstarted as materialized (
    select part.whole
    from part
    left join (select id from timed union all select id from now_ready union all select id from waiting) stands
        on stands.id = part.id
    group by part.whole
    having count(*) = count(stands.id)
),
gone as materialized (
    select part.id from part join unstarted on unstarted.whole = part.whole
),
a as (delete from flowrun.scheduled where id = any(array(select id from gone))),
b as (
    delete from flowrun.ready
    where ctid = any(array(select now_ready.place from now_ready join gone on gone.id = now_ready.id))
),
c as (delete from flowrun.blocked where id = any(array(select id from gone))),
d as (delete from flowrun.edges where parent_id = any(array(select id from gone))),
e as (delete from flowrun.deadlines where id = any(array(select id from gone))),
f as (delete from flowrun.cancels where id = any(array(select id from gone))),
g as (delete from flowrun.signals where root_id = any(array(select whole from unstarted))),
h as (delete from flowrun.flows where root_id = any(array(select whole from unstarted))),
i as (delete from flowrun.jobs where id = any(array(select id from gone)))
select whole from unstarted
