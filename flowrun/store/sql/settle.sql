-- Jobs that succeeded: write their results, count down their children, release those that wait for nothing more, and
-- hand up to $2 of them straight back to this worker as a lease. One durable commit for the whole batch.
--   $1 uuid worker  $2 integer handoff limit  $3 bigint number of the handoff's lease
--   $4 text[] queues and $5 text[] types of this worker
--   $6 integer changes of queues it knows of: nothing is handed over by one that does not know all
--   $7 bigint[] leases concerned  $8 bigint[] of these, the ones with no job left
--   $9 uuid[] job  $10 bigint[] its lease  $11 smallint[] its attempt  $12 text[] its result (JSON)
-- Result: rows tagged `note`: 0 a job handed off (its definition), 1 a job that must be settled the slow way because
-- success may leave one of its edges unsatisfied, or because this statement's snapshot may lack one of them (its lease
-- was touched), 2 those that are settled now, as an array, unless all are; 3 a queue where something became ready,
-- 4 something became scheduled. A job of the batch that is neither 1 nor 2 was not this worker's any more: late.
-- Raises unique_violation, and does nothing, when a job has its outcome already: a call repeated after a lost answer,
-- while its lease still holds others; a job twice in one batch. They go the slow way. (`on conflict do nothing` costs
-- every job a third of its insert, 3.3 against 2.2 us, and a third WAL record.)
-- Index: every look-up goes by primary key through a lateral or an array, so that no statistics can change the plan.
-- `done` is a full join for the same reason: only hashing (or sorting) can do one, where statistics of single-job leases
-- make a nested loop of 2,000 x 2,000 look as cheap (0.31 against 0.27). `more_less` is an upsert of rows that exist (they
-- are locked): an update from a join became such a loop once `blocked` had been analyzed while it was small, 220 ms. For
-- the usual n = 1 the array is faster than an upsert, 43 against 53 ms for 2,000.
-- Locks, in this order: this worker's leases by number; the children's `blocked` rows by id (unsorted, two batches
-- deadlock: measured 338 deadlocks and 52 s against none and 0.2 s). Edges are counted by child before the counter is
-- changed: joined one by one, two parents in one batch would count once.
with held as materialized (
    select n, claimed_at, jobs, attempts, touched from flowrun.leases
    where worker_id = $1 and n = any($7)
    order by n
    for update
),
mine as materialized (
    select held.n, held.claimed_at, held.touched, u.id, u.attempt
    from held, unnest(held.jobs, held.attempts) as u (id, attempt)
),
done as materialized (
    select d.id, d.n, d.attempt, d.result, mine.claimed_at, mine.touched
    from unnest($9::uuid[], $10::bigint[], $11::smallint[], $12::text[]) as d (id, n, attempt, result)
    full join mine on mine.id = d.id and mine.n = d.n and mine.attempt = d.attempt
    where coalesce(mine.id = d.id, false)
),
edge as materialized (
    select done.id as parent_id, done.n, e.child_id, e.condition
    from done
    cross join lateral (
        select child_id, condition from flowrun.edges where edges.parent_id = done.id offset 0
    ) e
),
slow as materialized (
    select parent_id, n from edge where condition = 1 or condition >= 5
    union
    select id, n from done where touched
),
spent as (
    delete from flowrun.leases where worker_id = $1 and n = any($8) and n not in (select n from slow)
),
settled as materialized (
    select id, attempt, result, claimed_at, clock_timestamp() as finished_at from done
    where done.id not in (select parent_id from slow)
),
kept as (
    insert into flowrun.finished (id, outcome, attempt, result, started_at, finished_at)
    select id, 1, attempt, result::jsonb, claimed_at, finished_at from settled
),
fired as materialized (
    select child_id, count(*)::integer as n from edge
    where (parent_id in (select id from settled)) is true
    group by child_id
    order by child_id
),
child as materialized (
    select b.id, b.need - fired.n as need, b.open - fired.n as open, fired.n
    from fired
    cross join lateral (select id, need, open from flowrun.blocked where blocked.id = fired.child_id for update) b
),
one_less as (
    update flowrun.blocked set need = blocked.need - 1, open = blocked.open - 1
    where id = any(array(select id from child where need > 0 and n = 1))
),
more_less as (
    insert into flowrun.blocked (id, need, open)
    select id, need, open from child where need > 0 and n > 1
    on conflict (id) do update set need = excluded.need, open = excluded.open
),
released as materialized (
    delete from flowrun.blocked where id = any(array(select id from child where need <= 0))
    returning id
),
next as materialized (
    select
        j.*,
        j.delay is null and (j.run_at is null or j.run_at <= now()) as due,
        case when j.options ->> 'before' ~ '^([0-9]{1,4}|[12][0-9]{4}|3[01][0-9]{3}|32000)$' then (j.options ->> 'before')::smallint else 0::smallint end as used
    from released
    cross join lateral (select * from flowrun.jobs where jobs.id = released.id offset 0) j
),
handoff as materialized (
    select * from next
    where
        due
        and (kind > 0 or (
            queue = any($4) and type = any($5) and (select changes = $6 from flowrun.workers where id = $1)
        ))
    order by priority, id
    limit $2
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, $3, clock_timestamp(), array_agg(id), array_agg((least(used, 32766::smallint) + 1)::smallint) from handoff
    having count(*) > 0
),
now_ready as materialized (
    insert into flowrun.ready (queue, priority, id, type, attempt)
    select queue, priority, id, type, used from next
    where due and next.id not in (select id from handoff)
    returning queue
),
timed as materialized (
    insert into flowrun.scheduled (id, run_at, attempt)
    select id, greatest(clock_timestamp() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at), used from next
    where not due
    returning id
)
select
    0 as note, id, (least(used, 32766::smallint) + 1)::smallint as attempt, flow_id, kind, name, queue, type, args, sources, bindings, priority, options
from handoff
union all
select 1, parent_id, null, null, null, null, null, null, null, null, null, null, null from slow
union all
select 2, null, null, null, null, null, null, null, null, ids, null, null, null
from (select array_agg(id) as ids, count(*) as n from settled) all_of
where n < cardinality($9)
union all
select 3, null, null, null, null, null, queue, null, null, null, null, null, null from now_ready group by queue
union all
(select 4, null, null, null, null, null, null, null, null, null, null, null, null from timed limit 1)
