-- What workers tell of themselves.

alter table flowrun.workers
add column heard integer,  -- of `changes`: so many count for every job that it still begins; null: it does not say (an older version)
add column trouble jsonb;  -- what its last heartbeat complained of: [{"kind", "type", "job", "since"}]; null: nothing

-- Jobs as people see them, with all that was asked for.
create or replace view flowrun.job_status as
select
    j.id,
    j.flow_id,
    j.name,
    j.type,
    split_part(j.queue, chr(31), 1) as queue,
    j.priority,
    case
        when f.id is not null then (array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome]
        when g.id is not null then 'waiting'
        when l.id is not null then 'running'
        when r.id is not null then 'ready'
        when s.id is not null then 'scheduled'
        else 'waiting'
    end as state,
    coalesce(f.attempt, l.attempt, r.attempt, s.attempt, 0::smallint) as attempt,
    j.optional,
    j.created_at,
    coalesce(s.run_at, j.run_at) as run_at,
    coalesce(f.started_at, l.claimed_at) as started_at,
    f.finished_at,
    w.name as worker,
    f.error ->> 'type' as error_type,
    f.error ->> 'message' as error,
    f.cause,
    f.result,
    p.fraction as progress,
    p.message as progress_message,
    c.id is not null and f.id is null as cancel_requested,
    (j.options ->> 'dispatched_by')::uuid as dispatched_by,
    j.options ->> 'schedule' as schedule,
    (j.options ->> 'scheduled_for')::timestamptz as scheduled_for,
    coalesce(array(select jsonb_array_elements_text(j.options -> 'tags')), '{}') as tags,
    (select k.key from flowrun.keys k where k.id = j.id limit 1) as key,
    case when split_part(j.queue, chr(31), 4) not like 'sequence:%' then nullif(split_part(j.queue, chr(31), 3), '')::integer end as "limit",
    case when split_part(j.queue, chr(31), 4) like 'key:%' then substr(split_part(j.queue, chr(31), 4), 5) end as limit_key,
    case when split_part(j.queue, chr(31), 4) like 'sequence:%' then substr(split_part(j.queue, chr(31), 4), 10) end as sequence,
    nullif(split_part(j.queue, chr(31), 2), '') as fair_key
from flowrun.jobs j
left join flowrun.finished f on f.id = j.id
left join (
    select u.id, u.attempt, leases.worker_id, leases.claimed_at
    from flowrun.leases, unnest(leases.jobs, leases.attempts) as u (id, attempt)
) l on l.id = j.id
left join flowrun.ready r on r.queue = j.queue and r.priority = j.priority and r.id = j.id
left join flowrun.scheduled s on s.id = j.id
left join flowrun.workers w on w.id = l.worker_id
left join flowrun.gates g on g.id = j.id
left join flowrun.progress p on p.job_id = j.id
left join flowrun.cancels c on c.id = j.id
where j.kind in (0, 3, 4, 5);
