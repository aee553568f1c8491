-- Take up to $3 jobs out of places whose jobs may not all run at once: lanes, and queues with a limit or a rate.
--   $1 uuid worker  $2 bigint number of the first lease  $3 integer limit  $4 text[] types this worker can run
--   $5 text[] queues that have a limit or a rate  $6 text[] queues to look for lanes in  $7 text[] where in each the last
--   look ended ('': at its beginning)  $8 integer how many lanes to look at
--   $9 integer changes of queues the worker knows of
--   $10 text[] slots, $11 integer[] how many of each this worker's jobs need already (those that run, and those to run next)
-- Result: rows tagged `note`: 0 a job, the number of its lease, and how many slots of its queue and its key the worker holds
-- as of that; 1 a queue whose lanes were looked at, how many, the last of them, and whether those were all; 2 the seconds
-- until a rate allows the next job; 3 other workers have used up a limit, and whether this one has nothing of it; 4 nothing
-- was done, because this statement's snapshot lacks a claim under limits that was made meanwhile: to be sent again.
-- A slot names a lease and lives as long as that, so whatever ends a lease (a settle, a retry, a rescue) frees its slots,
-- and nothing else must think of it. `most` is how many the worker holds as of that lease, all of its leases together: the
-- most of those that live counts. Where it is null (sequences), each job of the lease takes one. Slots of leases that have
-- gone are removed in passing; one of a sequence stays until its job has ended, and until then only that job is let in.
-- Every lane gives in turn (`turn`, then the order of the walk), which is what makes fair_key fair; limits are counted
-- along that order, so what one limit leaves out can only make others take less than they might.
-- Index: ready_pkey, one step a lane; slots_pkey, starts_queue; every look-up is lateral (`offset 0`: and made once). A slot is deleted by
-- ctid, as rows of `ready` are: it is never updated.
-- Locks: the row of `throttle`, which all claims under limits lock and count up, so they come one after the other. Who
-- waited for it has a snapshot from before: the count it has locked is not the count it sees, and it does nothing
-- (reading after waiting would need two round trips for every claim). Then `ready` rows, skipping locked ones (as in claim.sql),
-- and dead `slots`, skipping locked ones: they can wait for the next claim.
with recursive gate as materialized (
    select locked.claims = seen.claims as open
    from (select claims from flowrun.throttle for update) locked, (select claims from flowrun.throttle) seen
),
setting as materialized (
    select q.queue, s.concurrency, s.rate_jobs, s.rate_seconds, coalesce(s.paused, false) as paused
    from (select unnest($5::text[]) as queue union select unnest($6::text[])) q
    left join lateral (select * from flowrun.queues where queues.name = q.queue offset 0) s on true
    where (select open from gate)
),
walk (queue, cursor, lane, wrapped, step) as (
    select q.queue, q.cursor, coalesce(behind.lane, first.lane), behind.lane is null, 1
    from unnest($6::text[], $7::text[]) as q (queue, cursor)
    join setting on setting.queue = q.queue and not setting.paused
    cross join lateral (
        select (
            select r.queue from flowrun.ready r
            where r.queue > greatest(q.queue || chr(31), q.cursor) collate "C" and r.queue < q.queue || ' '
            order by r.queue limit 1
        ) as lane
        offset 0
    ) behind
    cross join lateral (
        select case when behind.lane is null and q.cursor <> '' then (
            select r.queue from flowrun.ready r
            where r.queue > q.queue || chr(31) and r.queue < q.queue || ' '
            order by r.queue limit 1
        ) end as lane
        offset 0
    ) first
    union all
    select walk.queue, walk.cursor, next.lane, next.wrapped, walk.step + 1
    from walk
    cross join lateral (
        select (
            select r.queue from flowrun.ready r
            where r.queue > walk.lane and r.queue < walk.queue || ' '
            order by r.queue limit 1
        ) as lane
        offset 0
    ) behind
    cross join lateral (
        select
            coalesce(behind.lane, case when not walk.wrapped and walk.cursor <> '' then (
                select r.queue from flowrun.ready r
                where r.queue > walk.queue || chr(31) and r.queue < walk.queue || ' '
                order by r.queue limit 1
            ) end) as lane,
            walk.wrapped or behind.lane is null as wrapped
        offset 0
    ) next
    where walk.lane is not null and walk.step < $8 and not (next.wrapped and next.lane > walk.cursor collate "C")
),
place as materialized (
    select
        w.lane as at, w.queue, w.step, 'queue:' || w.queue as queue_slot,
        nullif(split_part(w.lane, chr(31), 4), '') as key, case when split_part(w.lane, chr(31), 3) ~ '^[0-9]{1,9}$' then split_part(w.lane, chr(31), 3)::integer end as at_once,
        split_part(w.lane, chr(31), 5) = 'h' as holds
    from walk w
    where w.lane is not null
    union all
    select s.queue, s.queue, 0, 'queue:' || s.queue, null, null, false
    from setting s
    where s.queue = any($5) and not s.paused
),
slot as materialized (
    select
        s.name, s.row_at, s.worker_id, s.most, l.taken,
        case when l.taken is null and name.holds then (
            select u.id from unnest(s.jobs) as u (id)
            cross join lateral (select id from flowrun.jobs where jobs.id = u.id offset 0) j
            left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
            where f.id is null
            limit 1
        ) end as held
    from (
        select queue_slot as name, false as holds from place union select key, holds from place where key is not null
    ) name
    cross join lateral (select *, slots.ctid as row_at from flowrun.slots where slots.name = name.name offset 0) s
    left join lateral (
        select cardinality(jobs) as taken from flowrun.leases
        where worker_id = s.worker_id and n = s.n and (jobs <> '{}' or s.most is not null) offset 0
    ) l on true
),
holder as materialized (
    select
        name, worker_id, (array_agg(held) filter (where held is not null))[1] as held,
        coalesce(max(most) filter (where taken is not null), 0) + coalesce(sum(taken) filter (where most is null), 0) as jobs
    from slot
    group by name, worker_id
),
taken as materialized (
    select
        name, sum(jobs) as jobs, coalesce(sum(jobs) filter (where worker_id <> $1), 0) as others,
        (array_agg(held) filter (where held is not null))[1] as held
    from holder
    group by name
),
own as materialized (
    select name, sum(jobs) as jobs from unnest($10::text[], $11::integer[]) as u (name, jobs) group by name
),
gone as (
    delete from flowrun.slots where ctid = any(array(
        select dead.row_at
        from slot
        cross join lateral (select slots.ctid as row_at from flowrun.slots where slots.ctid = slot.row_at for update skip locked) dead
        where slot.taken is null and slot.held is null
    ))
),
started as materialized (
    select s.queue, coalesce(sum(t.jobs), 0) as jobs, min(t.started_at) as first
    from setting s
    left join lateral (
        select jobs, started_at from flowrun.starts
        where starts.queue = s.queue and started_at > clock_timestamp() - make_interval(secs => s.rate_seconds)
        offset 0
    ) t on true
    where s.rate_jobs is not null
    group by s.queue
),
forgotten as (
    delete from flowrun.starts
    using setting
    where starts.queue = setting.queue and started_at <= clock_timestamp() - make_interval(secs => setting.rate_seconds)
),
free as materialized (
    select
        p.at, p.queue, p.queue_slot, p.key, s.rate_jobs is not null as rated, s.concurrency is not null as bounded, mine.held,
        p.at_once - case when p.holds then coalesce(mine.jobs, 0) else coalesce(mine.others, 0) + coalesce(own_key.jobs, 0) end
            as key_free,
        least(s.concurrency - coalesce(whole.others, 0) - coalesce(own_queue.jobs, 0), s.rate_jobs - started.jobs, $3)
            as queue_free,
        coalesce(mine.others, 0) as key_others, coalesce(whole.others, 0) as queue_others, p.holds,
        coalesce(own_key.jobs, 0) as key_own, coalesce(own_queue.jobs, 0) as queue_own,
        row_number() over (order by p.step, p.at) as no, count(*) over () as places,
        case when p.key is not null then dense_rank() over (order by p.key) end as key_no,
        dense_rank() over (order by p.queue) as queue_no,
        dense_rank() over (order by case when p.holds then p.key end nulls first) - 1 as batch
    from place p
    join setting s on s.queue = p.queue
    left join taken mine on mine.name = p.key
    left join taken whole on whole.name = p.queue_slot
    left join own own_key on own_key.name = p.key
    left join own own_queue on own_queue.name = p.queue_slot
    left join started on started.queue = p.queue
    where exists (select from flowrun.workers where id = $1 and changes = $9)
),
candidate as (
    select
        f.no, f.queue, f.queue_slot, f.key, f.bounded, f.rated, f.key_no, f.queue_no, f.key_free, f.queue_free, f.batch,
        f.holds, f.key_own, f.queue_own,
        r.row_at, r.id,
        row_number() over (partition by f.no order by r.priority, r.id) as turn
    from free f
    cross join lateral (
        select ready.ctid as row_at, ready.priority, ready.id from flowrun.ready
        where ready.queue = f.at and ready.type = any($4) and (f.held is null or ready.id = f.held)
        order by ready.priority, ready.id
        limit least(f.key_free, f.queue_free, greatest(1, ceil($3::float8 / f.places)::integer))
        for update skip locked
    ) r
    where f.queue_free > 0 and f.key_free > 0 is not false
),
by_key as (
    select *, case when key_no is not null then row_number() over (partition by key_no order by turn, no) end as of_key
    from candidate
),
by_queue as (
    select *, row_number() over (partition by queue_no order by turn, no) as of_queue
    from by_key
    where of_key <= key_free is not false
),
chosen as materialized (
    select row_at, id, no, batch, queue, queue_slot, key, bounded, rated, holds, key_own, queue_own
    from by_queue
    where of_queue <= queue_free
    order by turn, no
    limit $3
),
out as materialized (
    delete from flowrun.ready where ctid = any(array(select row_at from chosen))
    returning id, (least(attempt, 32766::smallint) + 1)::smallint as attempt
),
job as materialized (
    select
        chosen.id, chosen.no, chosen.queue, chosen.queue_slot, chosen.key, chosen.bounded, chosen.rated, out.attempt,
        $2 + dense_rank() over (order by chosen.batch) - 1 as lease,
        case when chosen.bounded then chosen.queue_own + count(*) over (partition by chosen.queue) end as queue_most,
        case when chosen.key is not null and not chosen.holds then
            chosen.key_own + count(*) over (partition by chosen.key)
        end as key_most
    from chosen
    join out on out.id = chosen.id
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, lease, clock_timestamp(), array_agg(id), array_agg(attempt)
    from job
    group by lease
),
slots as (
    insert into flowrun.slots (name, worker_id, n, jobs, most)
    select queue_slot, $1, lease, '{}'::uuid[], queue_most from job where bounded group by queue_slot, lease, queue_most
    union all
    select key, $1, lease, '{}'::uuid[], key_most from job where key_most is not null group by key, lease, key_most
    union all
    select key, $1, lease, array_agg(id), null::bigint from job where key is not null and key_most is null group by key, lease
),
counted as (
    update flowrun.throttle set claims = claims + 1 where exists (select from job)
),
starts as (
    insert into flowrun.starts (queue, started_at, jobs)
    select queue, clock_timestamp(), count(*) from job where rated group by queue
)
select
    0 as note, j.id, job.attempt, j.flow_id, j.kind, j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority, j.options,
    job.lease, null::text as lane, null::boolean as whole, null::float8 as seconds, job.queue_most, job.key_most
from job
cross join lateral (select * from flowrun.jobs where jobs.id = job.id offset 0) j
union all
select
    1, null, null, null, null, null, walk.queue, null, null, null, null, null, null, count(walk.lane),
    (array_agg(walk.lane order by walk.step desc) filter (where walk.lane is not null))[1], max(walk.step) < $8, null, null, null
from walk
group by walk.queue
union all
select
    2, null, null, null, null, null, started.queue, null, null, null, null, null, null, null, null, null,
    extract(epoch from started.first + make_interval(secs => s.rate_seconds) - clock_timestamp())::float8, null, null
from started
join setting s on s.queue = started.queue
where started.jobs >= s.rate_jobs and not s.paused
union all
(
    select
        3, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
        bool_or(case when key_free <= 0 then key_own else queue_own end = 0), null, null, null
    from free
    where (key_free <= 0 and key_others > 0) or (bounded and queue_free <= 0 and queue_others > 0)
    having count(*) > 0
)
union all
select 4, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null
from gate
where not open
