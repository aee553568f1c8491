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
    j.options ->> 'schedule', (j.options ->> 'scheduled_for')::timestamptz, s.tags,
    (select k.key from flowrun.keys k where k.id = j.id limit 1), null, null, null, null
from flowrun.jobs j
join flowrun.flow_status s on s.id = j.id
left join flowrun.finished f on f.id = j.id
left join flowrun.cancels c on c.id = j.id
where j.id = $1 and j.kind = 1 and j.flow_id is not null
