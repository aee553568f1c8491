-- All queues there are: those something is known of, those that workers serve, and those where something is ready.
-- Result: name, concurrency, rate_jobs, rate_seconds, paused, ready (with its lanes), running under its limit, and how many
-- live workers serve it.
-- Index: ready_pkey, one step a queue or lane; the jobs that are ready are counted one by one.
-- Locks: none.
with recursive here (place) as (
    (select queue from flowrun.ready order by queue limit 1)
    union all
    select (select queue from flowrun.ready where queue > here.place order by queue limit 1)
    from here where here.place is not null
),
waiting as materialized (
    select split_part(here.place, chr(31), 1) as name, sum(counted.jobs)::bigint as jobs
    from here
    cross join lateral (select count(*) as jobs from flowrun.ready where queue = here.place) counted
    where here.place is not null
    group by 1
),
named as (
    select name from flowrun.queues
    union
    select unnest(queues) from flowrun.workers where expires_at > now()
    union
    select name from waiting
)
select
    named.name, q.concurrency, q.rate_jobs, q.rate_seconds, coalesce(q.paused, false), coalesce(waiting.jobs, 0),
    (
        select coalesce(sum(jobs), 0)::bigint
        from (
            select coalesce(max(s.most), 0) + coalesce(sum(cardinality(l.jobs)) filter (where s.most is null), 0) as jobs
            from flowrun.slots s
            join flowrun.leases l on l.worker_id = s.worker_id and l.n = s.n
            where s.name = 'queue:' || named.name
            group by s.worker_id
        ) held
    ),
    (select count(*) from flowrun.workers where expires_at > now() and named.name = any(queues))
from named
left join flowrun.queues q on q.name = named.name
left join waiting on waiting.name = named.name
where named.name <> 'flowrun'
order by named.name
