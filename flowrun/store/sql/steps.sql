-- What a job's steps came to.
--   $1 uuid job
-- Result: name, value. Index: steps_pkey.
select name, value from flowrun.steps where job_id = $1
