-- Workers that may still begin a job of a type by what they knew before that was paused. As unheard.sql.
--   $1 uuid[] workers  $2 integer[] the count of changes that each has to know
-- Result: name, and whether it will say when it has heard (one of an older version begins jobs of paused types).
-- Locks: none.
select w.name, w.heard is not null and w.heeds_types
from unnest($1::uuid[], $2::integer[]) as u (id, changes)
join flowrun.workers w on w.id = u.id
where w.expires_at > now() and (coalesce(w.heard, -1) < u.changes or not w.heeds_types)
order by w.name
