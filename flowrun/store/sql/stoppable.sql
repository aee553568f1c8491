-- Of some jobs, those that are cancelled with their flow.
--   $1 uuid[] jobs
select j.id
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, kind, options from flowrun.jobs where jobs.id = u.id offset 0) j
where j.kind in (0, 3, 4, 5) and not coalesce(j.options ? 'stays', false)
