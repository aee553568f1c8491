-- Undone jobs that wait for nothing run again; a sleep sleeps again.
--   $1 uuid[] jobs
-- Result: note 3 with a queue where something became ready, note 4 when something became scheduled.
-- Locks: only what it inserts.
with next as materialized (
    select
        j.id, j.queue, j.type, j.priority, case when j.kind = 4 then j.delay end as delay,
        case when j.options ->> 'before' ~ '^([0-9]{1,4}|[12][0-9]{4}|3[01][0-9]{3}|32000)$' then (j.options ->> 'before')::smallint else 0::smallint end as used
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select * from flowrun.jobs where jobs.id = u.id offset 0) j
),
now_ready as materialized (
    insert into flowrun.ready (queue, priority, id, type, attempt)
    select queue, priority, id, type, used from next where delay is null
    returning queue
),
timed as materialized (
    insert into flowrun.scheduled (id, run_at, attempt)
    select id, clock_timestamp() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), used from next where delay is not null
    returning id
)
select 3 as note, queue from now_ready group by queue
union all
(select 4, null from timed limit 1)
