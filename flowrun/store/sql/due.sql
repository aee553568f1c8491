-- Make ready what is due, at most $1 jobs.
-- Result: note 3 with a queue where something became ready; note 5 with the seconds until the next, or a deadline, is due.
-- A job that stands in `ready` already (a hand in SQL has put it there) leaves `scheduled` all the same.
-- Index: scheduled_run_at. Locks: `scheduled` rows, skipping locked ones.
with due as (
    delete from flowrun.scheduled
    where id = any(array(
        select id from flowrun.scheduled where run_at <= now() order by run_at limit $1 for update skip locked
    ))
    returning id, attempt
),
now_ready as materialized (
    insert into flowrun.ready (queue, priority, id, type, attempt)
    select j.queue, j.priority, j.id, j.type, due.attempt
    from due
    cross join lateral (select id, queue, type, priority from flowrun.jobs where jobs.id = due.id offset 0) j
    on conflict do nothing
    returning queue
)
select 3 as note, queue, null::float8 as seconds from now_ready group by queue
union all
select 5, null, (
    select extract(epoch from least(
        (
            select greatest(run_at, '1970-01-01') from flowrun.scheduled
            where (id in (select id from due)) is not true and run_at < 'infinity'
            order by run_at
            limit 1
        ),
        (select greatest(due_at, '1970-01-01') from flowrun.deadlines where due_at < 'infinity' order by due_at limit 1)
    ) - clock_timestamp())::float8
)
