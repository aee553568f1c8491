-- A job that succeeded, the last of its lease: settle.sql for a batch of one, which is what an idle system settles, and
-- each step of a lonely chain. Without lists to join it takes 0.35 where the other takes 0.41 ms, commit and way included.
--   as in settle.sql: $1 uuid worker  $2 $3 $4 $5 $6
--   $7 bigint its lease  $8 uuid job  $9 smallint its attempt  $10 text its result (JSON)
-- Result: as in settle.sql; `note` 2 is always there if the job is settled now. If it is not, nothing was done: it was not
-- this worker's any more, or has to be settled the slow way; settle.sql tells.
-- Raises unique_violation, and does nothing, when the job has its outcome already.
-- Index: every look-up goes by primary key, as in settle.sql.
-- Locks, in this order: the lease; the children's `blocked` rows by id.
with held as materialized (
    delete from flowrun.leases
    where
        worker_id = $1 and n = $7 and attempts[array_position(jobs, $8)] = $9 and not touched
        and not exists (select from flowrun.edges where parent_id = $8 and (condition = 1 or condition >= 5))
    returning claimed_at, clock_timestamp() as finished_at
),
kept as (
    insert into flowrun.finished (id, outcome, attempt, result, started_at, finished_at)
    select $8, 1, $9, $10::text::jsonb, claimed_at, finished_at from held
),
fired as materialized (
    select child_id, count(*)::integer as n
    from held
    cross join lateral (select child_id from flowrun.edges where edges.parent_id = $8 offset 0) e
    group by child_id
    order by child_id
),
-- from settle: child released next handoff lease now_ready timed
less as (
    insert into flowrun.blocked (id, need, open)
    select id, need, open from child where need > 0
    on conflict (id) do update set need = excluded.need, open = excluded.open
)
select
    0 as note, id, (least(used, 32766::smallint) + 1)::smallint as attempt, flow_id, kind, name, queue, type, args, sources, bindings, priority, options
from handoff
union all
select 2, null, null, null, null, null, null, null, null, array[$8], null, null, null from held
union all
select 3, null, null, null, null, null, queue, null, null, null, null, null, null from now_ready group by queue
union all
(select 4, null, null, null, null, null, null, null, null, null, null, null, null from timed limit 1)
