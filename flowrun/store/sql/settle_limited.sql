-- Settle a batch as settle.sql does, in which jobs are of sequences: their slots are free with their own settle, and passed
-- on at once, one for one, to what waits in the same place. So the next job under the same limit starts from this
-- statement's answer, without a claim, and without the lock that claims under limits take in turn: nothing is taken that
-- was not given here.
--   as in settle.sql: $1 $2 $3 $4 $5 $6 $7 $8 $9 $10 $11 $12
--   $13 smallint[] by job: number of the place that its slots are passed on in, 0: nowhere
--   $14 bigint[] of the leases concerned, those that take up limits and go on with other jobs
--   $15 text[] places  $16 bigint[] number of a lease for each  $17 text[] name of the slot that a job of it takes up
--   $18 integer 1: all slots are passed on, 2: every other one, the rest is for whoever claims
--   $19 text[] and $20 bigint[] slots of leases in $8: name and lease
-- Result: as in settle.sql, and with each job its lease.
-- A statement of its own: a settle without limits would pay for every part of it that finds nothing (about 10 us each, of
-- 215 for a single job). What both share stands in settle.sql.
-- Index: ready_pkey, slots_pkey.
-- Locks: as in settle.sql; and `ready` rows, skipping locked ones (as in claim.sql).
with
-- from settle: held mine
done as materialized (
    select d.id, d.n, d.attempt, d.result, d.place, mine.claimed_at, mine.touched
    from unnest($9::uuid[], $10::bigint[], $11::smallint[], $12::text[], $13::smallint[]) as d (id, n, attempt, result, place)
    full join mine on mine.id = d.id and mine.n = d.n and mine.attempt = d.attempt
    where coalesce(mine.id = d.id, false)
),
-- from settle: edge slow spent settled kept
rest as (
    update flowrun.leases
    set (jobs, attempts) = (
        select coalesce(array_agg(u.id), '{}'), coalesce(array_agg(u.attempt), '{}')
        from unnest(leases.jobs, leases.attempts) as u (id, attempt)
        where (u.id in (select id from settled)) is not true
    )
    where worker_id = $1 and n = any($14)
),
ended as materialized (
    select place, count(distinct id)::integer as jobs from done
    where place > 0 and (id in (select id from settled)) is true
    group by place
),
candidate as materialized (
    select ended.place, r.row_at, r.id, r.attempt
    from ended
    cross join lateral (
        select ready.ctid as row_at, ready.id, (least(ready.attempt, 32766::smallint) + 1)::smallint as attempt
        from flowrun.ready
        where ready.queue = ($15::text[])[ended.place] and ready.type = any($5)
        order by ready.priority, ready.id
        limit (ended.jobs + ($18 - 1) * ($3 % 2)::integer) / $18
        for update skip locked
    ) r
    where (select changes = $6 from flowrun.workers where id = $1)
),
passed as (
    delete from flowrun.ready where ctid = any(array(select row_at from candidate))
),
pass_lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, ($16::bigint[])[place], clock_timestamp(), array_agg(id), array_agg(attempt) from candidate
    group by place
),
pass_slots as (
    insert into flowrun.slots (name, worker_id, n, jobs)
    select ($17::text[])[place], $1, ($16::bigint[])[place], array_agg(id) from candidate
    group by place
),
-- from settle: fired child one_less more_less released next handoff lease now_ready timed
given as (
    delete from flowrun.slots
    using unnest($19::text[], $20::bigint[]) as d (name, n)
    where slots.name = d.name and slots.worker_id = $1 and slots.n = d.n and d.n not in (select n from slow)
)
select
    0 as note, id, (least(used, 32766::smallint) + 1)::smallint as attempt, flow_id, kind, name, queue, type, args, sources, bindings, priority, options,
    $3 as lease
from handoff
union all
select
    0, j.id, candidate.attempt, j.flow_id, j.kind, j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority, j.options,
    ($16::bigint[])[candidate.place]
from candidate
cross join lateral (select * from flowrun.jobs where jobs.id = candidate.id offset 0) j
union all
select 1, parent_id, null, null, null, null, null, null, null, null, null, null, null, null from slow
union all
select 2, null, null, null, null, null, null, null, null, ids, null, null, null, null
from (select array_agg(id) as ids, count(*) as n from settled) all_of
where n < cardinality($9)
union all
select 3, null, null, null, null, null, queue, null, null, null, null, null, null, null from now_ready group by queue
union all
(select 4, null, null, null, null, null, null, null, null, null, null, null, null, null from timed limit 1)
