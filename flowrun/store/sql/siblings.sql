-- The items of maps that are cancelled together. A map that has no items yet has its parents for sources: left alone.
--   $1 uuid[] jobs, maps among them
-- Result: the items that have not ended.
select u.id
from unnest($1::uuid[]) as m (id)
cross join lateral (
    select sources from flowrun.jobs
    where
        jobs.id = m.id and jobs.kind = 5 and jobs.args ->> 'on_error' = 'cancel_siblings'
        and jobs.bindings = '[]'
    offset 0
) map
cross join lateral unnest(map.sources) as u (id)
left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
where f.id is null
