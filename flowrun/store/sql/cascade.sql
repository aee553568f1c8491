-- Write what core.cascade decided. The rows are locked already, by lock_blocked.sql; so they exist, and the upsert is an
-- update that no statistics can turn into a loop over both sides.
--   $1 uuid[] released
--   $2 uuid[] skipped
--   $3 uuid[] still waiting  $4 integer[] need  $5 integer[] open
-- Result: note 3 with a queue where something became ready, note 4 when something became scheduled.
with gone as (
    delete from flowrun.blocked where id = any($1::uuid[] || $2::uuid[])
),
fewer as (
    insert into flowrun.blocked (id, need, open)
    select u.id, u.need, u.open from unnest($3::uuid[], $4::integer[], $5::integer[]) as u (id, need, open)
    on conflict (id) do update set need = excluded.need, open = excluded.open
),
next as materialized (
    select
        j.*,
        j.delay is null and (j.run_at is null or j.run_at <= now()) as due,
        case when j.options ->> 'before' ~ '^([0-9]{1,4}|[12][0-9]{4}|3[01][0-9]{3}|32000)$' then (j.options ->> 'before')::smallint else 0::smallint end as used
    from unnest($1::uuid[]) as released (id)
    cross join lateral (select * from flowrun.jobs where jobs.id = released.id offset 0) j
),
now_ready as materialized (
    insert into flowrun.ready (queue, priority, id, type, attempt)
    select queue, priority, id, type, used from next where due
    on conflict do nothing
    returning queue
),
timed as materialized (
    insert into flowrun.scheduled (id, run_at, attempt)
    select id, greatest(clock_timestamp() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at), used from next
    where not due
    on conflict do nothing
    returning id
)
select 3 as note, queue from now_ready group by queue
union all
(select 4, null from timed limit 1)
