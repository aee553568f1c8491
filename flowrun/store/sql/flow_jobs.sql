-- The jobs of a flow, those of the flows inside it included, in topological order.
--   $1 uuid flow
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select
    s.id, s.flow_id, s.name, s.type, s.queue, s.priority, s.state, s.attempt, s.optional, s.created_at, s.run_at,
    s.started_at, s.finished_at, s.worker, s.error_type, s.error, s.cause, s.progress, s.progress_message,
    s.cancel_requested, s.dispatched_by, s.schedule, s.scheduled_for,
    s.tags, s.key, s."limit", s.limit_key, s.sequence, s.fair_key
from inside join flowrun.job_status s on s.flow_id = inside.id
order by s.id
