-- Workers that may still begin a job by what they knew before a queue was changed.
--   $1 uuid[] workers  $2 integer[] the count of changes that each has to know
-- Result: name, and whether it will say when it has heard (one of an older version does not).
-- Locks: none.
select w.name, w.heard is not null
from unnest($1::uuid[], $2::integer[]) as u (id, changes)
join flowrun.workers w on w.id = u.id
where w.expires_at > now() and coalesce(w.heard, -1) < u.changes
order by w.name
