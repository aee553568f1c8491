-- After a flow's rows were copied in: put what waits for nothing where it belongs.
-- Of jobs it reads what a dispatcher's role may see.
--   $1 uuid[] jobs that wait for nothing
-- Locks: only what it inserts.
with free as (
    select j.id, j.queue, j.type, j.priority, j.delay, j.run_at
    from unnest($1::uuid[]) as u (id)
    cross join lateral (
        select id, queue, type, delay, run_at, priority from flowrun.jobs where jobs.id = u.id offset 0
    ) j
),
timed as (
    insert into flowrun.scheduled (id, run_at)
    select id, greatest(now() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at) from free
    where delay is not null or run_at is not null
)
insert into flowrun.ready (queue, priority, id, type)
select queue, priority, id, type from free
where delay is null and run_at is null
