-- One job as people see it.
--   $1 uuid job
select
    id, flow_id, name, type, queue, priority, state, attempt, optional, created_at, run_at, started_at, finished_at,
    worker, error_type, error, cause
from flowrun.job_status where id = $1
