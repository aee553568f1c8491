-- The counters of jobs that still wait, locked.
--   $1 uuid[] jobs
-- Locks: `blocked` rows by id, the order every other statement takes them in.
select b.id, b.need, b.open
from (select id from unnest($1::uuid[]) as u (id) order by id) u
cross join lateral (select id, need, open from flowrun.blocked where blocked.id = u.id for update) b
