-- How many jobs of a type are in the hands of workers.
--   $1 text type
-- Index: jobs_pkey, finished_pkey; `leases` has a row for each batch that runs. For people, not often.
-- Locks: none.
select count(*)
from flowrun.leases
cross join lateral unnest(leases.jobs) as u (id)
join flowrun.jobs j on j.id = u.id
where j.type = $1 and not exists (select from flowrun.finished where finished.id = u.id)
