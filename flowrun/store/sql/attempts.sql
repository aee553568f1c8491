-- The attempts of a job that did not succeed, in order.
--   $1 uuid job
select attempt, worker, started_at, ended_at, error_type, message, traceback, detail::text
from flowrun.attempts where job_id = $1 order by attempt
