-- How some jobs ended, as those see it who wait for them.
--   $1 uuid[] jobs
-- Result: id, outcome, optional; no row for a job that has not ended.
select f.id, f.outcome, j.optional
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, outcome from flowrun.finished where finished.id = u.id offset 0) f
cross join lateral (select optional from flowrun.jobs where jobs.id = u.id offset 0) j
