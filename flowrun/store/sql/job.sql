-- One job as people see it; for a flow as a node, the job that ends it.
--   $1 uuid job
select
    id, flow_id, name, type, queue, priority, state, attempt, optional, created_at, run_at, started_at, finished_at,
    worker, error_type, error, cause, progress, progress_message, cancel_requested, dispatched_by,
    schedule, scheduled_for, tags, key, "limit", limit_key, sequence, fair_key
from flowrun.job_status where id = $1
union all
select
    j.id, j.flow_id, j.name, j.type, j.queue, j.priority, s.state, coalesce(f.attempt, 0::smallint), j.optional,
    j.created_at, null, f.started_at, s.finished_at, null, f.error ->> 'type', f.error ->> 'message', f.cause,
    null, null, c.id is not null and f.id is null, s.dispatched_by,
    j.options ->> 'schedule', case when j.options ->> 'scheduled_for' ~ '^([12][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|20([02468][048]|[13579][26])-02-29)T([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]{1,6})?([+-]([01][0-9]|2[0-3]):[0-5][0-9]|Z)$' then (j.options ->> 'scheduled_for')::timestamptz end, s.tags,
    (select k.key from flowrun.keys k where k.id = j.id limit 1), null, null, null, null
from flowrun.jobs j
join flowrun.flow_status s on s.id = j.id
left join flowrun.finished f on f.id = j.id
left join flowrun.cancels c on c.id = j.id
where j.id = $1 and j.kind = 1 and j.flow_id is not null
