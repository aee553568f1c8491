-- Take up to $3 jobs out of queues with a limit or a rate that have nothing in lanes: claim_limited.sql without the rounds,
-- at half of its cost.
--   $1 uuid worker  $2 bigint number of the first lease  $3 integer limit  $4 text[] types this worker can run  $5 text[] queues
--   $6 integer changes of queues the worker knows of  $7 text[] slots, $8 integer[] how many of each its jobs need already
-- Result and indexes as in claim_limited.sql. Locks: as there, `throttle` first, then what is locked is passed by.
with gate as materialized (
    select locked.claims = seen.claims as open
    from (select claims from flowrun.throttle for update) locked, (select claims from flowrun.throttle) seen
),
setting as materialized (
    select s.*, u.no - 1 as no
    from unnest($5::text[]) with ordinality as u (name, no)
    cross join lateral (select * from flowrun.queues where queues.name = u.name offset 0) s
    where (select open from gate) and not s.paused and exists (select from flowrun.workers where id = $1 and changes = $6)
),
slot as materialized (
    select s.row_at, s.worker_id, s.most, l.taken, setting.name as queue
    from setting
    cross join lateral (
        select *, slots.ctid as row_at from flowrun.slots where slots.name = 'queue:' || setting.name offset 0
    ) s
    left join lateral (
        select cardinality(jobs) as taken from flowrun.leases
        where worker_id = s.worker_id and n = s.n and (jobs <> '{}' or s.most is not null) offset 0
    ) l on true
    where setting.concurrency is not null
),
gone as (
    delete from flowrun.slots where ctid = any(array(
        select dead.row_at
        from slot
        cross join lateral (select slots.ctid as row_at from flowrun.slots where slots.ctid = slot.row_at for update skip locked) dead
        where slot.taken is null
    ))
),
holder as materialized (
    select
        queue, worker_id,
        coalesce(max(most) filter (where taken is not null), 0) + coalesce(sum(taken) filter (where most is null), 0) as jobs
    from slot
    group by queue, worker_id
),
started as materialized (
    select s.name, coalesce(sum(t.jobs), 0) as jobs, min(t.started_at) as first
    from setting s
    left join lateral (
        select jobs, started_at from flowrun.starts
        where starts.queue = s.name and started_at > clock_timestamp() - make_interval(secs => s.rate_seconds)
        offset 0
    ) t on true
    where s.rate_jobs is not null
    group by s.name
),
forgotten as (
    delete from flowrun.starts
    using setting
    where starts.queue = setting.name and started_at <= clock_timestamp() - make_interval(secs => setting.rate_seconds)
),
free as materialized (
    select
        s.name, s.no, coalesce(own.jobs, 0) as own, coalesce(others.jobs, 0) as others,
        least(s.concurrency - coalesce(own.jobs, 0) - coalesce(others.jobs, 0), s.rate_jobs - started.jobs, $3) as jobs
    from setting s
    left join (select name, sum(jobs) as jobs from unnest($7::text[], $8::integer[]) as u (name, jobs) group by name) own
        on own.name = 'queue:' || s.name
    left join (select queue, sum(jobs) as jobs from holder where worker_id <> $1 group by queue) others on others.queue = s.name
    left join started on started.name = s.name
),
out as materialized (
    delete from flowrun.ready
    where ctid = any(array(
        select r.ctid
        from free
        cross join lateral (
            select ready.ctid from flowrun.ready
            where ready.queue = free.name and ready.type = any($4)
            order by ready.priority, ready.id
            limit greatest(free.jobs, 0)
            for update skip locked
        ) r
        limit $3
    ))
    returning id, queue, (least(attempt, 32766::smallint) + 1)::smallint as attempt
),
batch as materialized (
    select
        out.queue, $2 + free.no as lease, free.own + count(*) as most, array_agg(out.id) as jobs, array_agg(out.attempt) as attempts
    from out
    join free on free.name = out.queue
    group by out.queue, free.no, free.own
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, lease, clock_timestamp(), jobs, attempts from batch
),
slots as (
    insert into flowrun.slots (name, worker_id, n, jobs, most)
    select 'queue:' || s.name, $1, batch.lease, '{}', batch.most from batch join setting s on s.name = batch.queue where s.concurrency is not null
),
counted as (
    update flowrun.throttle set claims = claims + 1 where exists (select from batch)
),
starts as (
    insert into flowrun.starts (queue, started_at, jobs)
    select s.name, clock_timestamp(), cardinality(batch.jobs)
    from batch join setting s on s.name = batch.queue
    where s.rate_jobs is not null
)
select
    0 as note, j.id, u.attempt, j.flow_id, j.kind, j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority, j.options,
    batch.lease, null::text as lane, null::boolean as whole, null::float8 as seconds,
    case when s.concurrency is not null then batch.most end as queue_most, null::bigint as key_most
from batch
join setting s on s.name = batch.queue
cross join lateral unnest(batch.jobs, batch.attempts) as u (id, attempt)
cross join lateral (select * from flowrun.jobs where jobs.id = u.id offset 0) j
union all
select
    2, null, null, null, null, null, started.name, null, null, null, null, null, null, null, null, null,
    extract(epoch from started.first + make_interval(secs => s.rate_seconds) - clock_timestamp())::float8, null, null
from started
join setting s on s.name = started.name
where started.jobs >= s.rate_jobs
union all
(
    select
        3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, bool_or(free.own = 0), null, null, null
    from free join setting s on s.name = free.name
    where s.concurrency is not null and free.jobs <= 0 and free.others > 0
    having count(*) > 0
)
union all
select 4, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null
from gate
where not open
