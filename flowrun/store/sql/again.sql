-- Jobs that come back: after a backoff, a snooze, or handed back. They have left their lease in the same transaction.
-- One that has its outcome stays where it is, whatever the caller believes; one that waits already waits once.
--   $1 uuid[] job  $2 smallint[] attempts used  $3 float8[] seconds from now
-- Result: note 3 with a queue where something became ready, note 4 when something became scheduled.
-- Locks: only what it inserts.
with back as materialized (
    select j.id, j.queue, j.type, j.priority, u.attempt, u.delay
    from unnest($1::uuid[], $2::smallint[], $3::float8[]) as u (id, attempt, delay)
    cross join lateral (select id, queue, type, priority from flowrun.jobs where jobs.id = u.id offset 0) j
    left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
    where f.id is null
),
now_ready as materialized (
    insert into flowrun.ready (queue, priority, id, type, attempt)
    select queue, priority, id, type, attempt from back where delay <= 0
    on conflict do nothing
    returning queue
),
timed as materialized (
    insert into flowrun.scheduled (id, run_at, attempt)
    select id, clock_timestamp() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), attempt from back where delay > 0
    on conflict do nothing
    returning id
)
select 3 as note, queue from now_ready group by queue
union all
(select 4, null from timed limit 1)
