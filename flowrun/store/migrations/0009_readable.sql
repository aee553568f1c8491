-- Whatever stands in the options of a job, the lists that people look at answer for all others.
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
    (substring(j.options ->> 'dispatched_by' from '^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'))::uuid as dispatched_by,
    j.options ->> 'schedule' as schedule,
    case  -- as flowrun writes it; a cast would refuse what is no day
        when j.options ->> 'scheduled_for' ~ '^([12][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|20([02468][048]|[13579][26])-02-29)T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?([+-]([01][0-9]|2[0-3]):[0-5][0-9]|Z)$'
        then (j.options ->> 'scheduled_for')::timestamptz
    end as scheduled_for,
    array(
        select tag from jsonb_array_elements_text(case when jsonb_typeof(j.options -> 'tags') = 'array' then j.options -> 'tags' end) tag
        where tag is not null
    ) as tags,
    (select k.key from flowrun.keys k where k.id = j.id limit 1) as key,
    case
        when split_part(j.queue, chr(31), 4) not like 'sequence:%' and split_part(j.queue, chr(31), 3) ~ '^[0-9]{1,9}$'
        then split_part(j.queue, chr(31), 3)::integer
    end as "limit",
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
