-- How far a job says it is. The last word counts.
--   $1 uuid job  $2 float8 fraction  $3 text message
-- Locks: the job's row of `progress`.
insert into flowrun.progress (job_id, fraction, message) values ($1, $2, $3)
on conflict (job_id) do update
set fraction = excluded.fraction, message = excluded.message, reported_at = excluded.reported_at
