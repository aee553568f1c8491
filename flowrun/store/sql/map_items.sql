-- The items of maps that wait for them.
--   $1 uuid[] jobs, maps among them
-- Result: map, item that has not ended. A map that has no items yet has its parents for sources: left alone.
-- Index: jobs_pkey, finished_pkey. The maps are held where they wait, so no more items come.
select m.id, u.id as item_id
from unnest($1::uuid[]) as m (id)
cross join lateral (
    select sources from flowrun.jobs where jobs.id = m.id and jobs.kind = 5 and jobs.bindings = '[]' offset 0
) map
cross join lateral unnest(map.sources) as u (id)
left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
left join lateral (select id from flowrun.finished where finished.id = m.id offset 0) mf on true
where f.id is null and mf.id is null
