-- One job as people see it; for a flow as a node, the job that ends it.
--   $1 uuid job
select
    id, flow_id, name, type, queue, priority, state, attempt, optional, created_at, run_at, started_at, finished_at,
    worker, error_type, error, cause, progress, progress_message, cancel_requested, dispatched_by,
    (select options ->> 'schedule' from flowrun.jobs where jobs.id = $1) as schedule,
    (select (options ->> 'scheduled_for')::timestamptz from flowrun.jobs where jobs.id = $1) as scheduled_for
from flowrun.job_status where id = $1
union all
select
    j.id, j.flow_id, j.name, j.type, j.queue, j.priority, s.state, coalesce(f.attempt, 0::smallint), j.optional,
    j.created_at, null, f.started_at, s.finished_at, null, f.error ->> 'type', f.error ->> 'message', f.cause,
    null, null, c.id is not null and f.id is null, s.dispatched_by,
    j.options ->> 'schedule', (j.options ->> 'scheduled_for')::timestamptz
from flowrun.jobs j
join flowrun.flow_status s on s.id = j.id
left join flowrun.finished f on f.id = j.id
left join flowrun.cancels c on c.id = j.id
where j.id = $1 and j.kind = 1 and j.flow_id is not null
