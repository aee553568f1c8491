-- Keep attempts that did not succeed.
--   $1 uuid[] job  $2 smallint[] attempt  $3 text worker  $4 timestamptz[] started_at  $5 text[] error type
--   $6 text[] message  $7 text[] traceback  $8 text[] detail (JSON)
insert into flowrun.attempts (job_id, attempt, worker, started_at, ended_at, error_type, message, traceback, detail)
select u.job_id, u.attempt, $3, u.started_at, clock_timestamp(), u.error_type, u.message, u.traceback, u.detail::jsonb
from unnest($1::uuid[], $2::smallint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[])
    as u (job_id, attempt, started_at, error_type, message, traceback, detail)
on conflict (job_id, attempt) do nothing
