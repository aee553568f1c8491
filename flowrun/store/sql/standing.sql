-- Where a job stands and who could run it.
--   $1 uuid job
-- Result: one row: kind, name, type, queue, flow_id, outcome, error, cause's name, run_at, attempt, ready, claimed_at and
-- worker while it runs, need and open while it waits, the signal, the time and the arguments of a gate it stands at,
-- whether it was asked to stop, and how many live workers serve its queue, know its type, and do both; whether its queue
-- or its type is paused, its limits, and how much of them is used up.
select
    j.kind, coalesce(j.name, j.type) as name, j.type, split_part(j.queue, chr(31), 1) as queue, j.queue as place, coalesce(j.flow_id, case when j.kind = 1 then j.id end) as flow_id,
    f.outcome, f.error ->> 'type' as error_type, f.error ->> 'message' as error, cause.name as cause,
    s.run_at, coalesce(f.attempt, l.attempt, r.attempt, s.attempt, 0) as attempt,
    r.id is not null as ready, l.claimed_at, w.name as worker,
    b.need, b.open, g.signal, g.opened_at, j.args::text as args, c.id is not null as asked,
    (select count(*) from flowrun.workers where expires_at > now() and (q.name = any(queues) or q.name = 'flowrun'))
        as serving,
    (select count(*) from flowrun.workers where expires_at > now() and (j.type = any(types) or j.kind > 0)) as knowing,
    (
        select count(*) from flowrun.workers
        where expires_at > now() and (q.name = any(queues) or q.name = 'flowrun') and (j.type = any(types) or j.kind > 0)
    ) as able,
    exists (select from flowrun.types ty where ty.name = j.type and ty.paused) as type_paused,
    coalesce(qs.paused, false) as paused, qs.concurrency, qs.rate_jobs, qs.rate_seconds,
    nullif(split_part(j.queue, chr(31), 4), '') as limit_key, case when split_part(j.queue, chr(31), 3) ~ '^[0-9]{1,9}$' then split_part(j.queue, chr(31), 3)::integer end as limit_most,
    (
        select coalesce(sum(jobs), 0)::bigint
        from (
            select
                coalesce(max(slot.most), 0)
                + coalesce(sum(cardinality(lease.jobs)) filter (where slot.most is null), 0) as jobs
            from flowrun.slots slot
            join flowrun.leases lease on lease.worker_id = slot.worker_id and lease.n = slot.n
            where slot.name = nullif(split_part(j.queue, chr(31), 4), '')
            group by slot.worker_id
        ) held
    ) as limit_used,
    (
        select coalesce(sum(jobs), 0)::bigint
        from (
            select
                coalesce(max(slot.most), 0)
                + coalesce(sum(cardinality(lease.jobs)) filter (where slot.most is null), 0) as jobs
            from flowrun.slots slot
            join flowrun.leases lease on lease.worker_id = slot.worker_id and lease.n = slot.n
            where slot.name = 'queue:' || q.name
            group by slot.worker_id
        ) held
    ) as queue_used,
    (
        select coalesce(sum(jobs), 0) from flowrun.starts
        where starts.queue = q.name and started_at > now() - make_interval(secs => qs.rate_seconds)
    ) as rate_used
from flowrun.jobs j
cross join lateral (select split_part(j.queue, chr(31), 1) as name) q
left join flowrun.queues qs on qs.name = q.name
left join flowrun.finished f on f.id = j.id
left join flowrun.jobs cause on cause.id = f.cause
left join flowrun.scheduled s on s.id = j.id
left join flowrun.ready r on r.queue = j.queue and r.priority = j.priority and r.id = j.id
left join lateral (
    select u.attempt, leases.worker_id, leases.claimed_at
    from flowrun.leases, unnest(leases.jobs, leases.attempts) as u (id, attempt)
    where leases.jobs @> array[j.id] and u.id = j.id
    limit 1
) l on true
left join flowrun.workers w on w.id = l.worker_id
left join flowrun.blocked b on b.id = j.id
left join flowrun.gates g on g.id = j.id
left join flowrun.cancels c on c.id = j.id
where j.id = $1
