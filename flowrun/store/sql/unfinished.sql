-- Of some jobs, those without an outcome.
--   $1 uuid[] jobs
-- Index: finished_pkey, job by job.
select u.id
from unnest($1::uuid[]) as u (id)
left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
where f.id is null
