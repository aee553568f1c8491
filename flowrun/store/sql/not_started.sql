-- Whether no attempt of a job has ended, and whether one may be under way.
--   $1 uuid job
select exists (select from flowrun.leases where leases.jobs @> array[j.id]) as leased
from flowrun.jobs j
where j.id = $1
and not exists (select from flowrun.finished where finished.id = j.id)
and not exists (select from flowrun.attempts where attempts.job_id = j.id)
