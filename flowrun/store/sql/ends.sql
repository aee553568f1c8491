-- Of some ids, those of flows (a flow's id is that of the job that ends it).
--   $1 uuid[] ids
select u.id from unnest($1::uuid[]) as u (id)
cross join lateral (select id from flowrun.jobs where jobs.id = u.id and jobs.kind = 1 offset 0) j
