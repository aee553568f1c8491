-- How jobs (or flows, whose id is their end's) ended; those that did not yet give no row.
--   $1 uuid[] jobs
select f.id, f.outcome, f.attempt, f.result, f.error, f.cause
from unnest($1::uuid[]) as u (id)
cross join lateral (select * from flowrun.finished where finished.id = u.id offset 0) f
