-- The counters of jobs that still wait, locked.
--   $1 uuid[] jobs
-- Result: id, need, open, and whether it is a join.
-- Locks: `blocked` rows by id, the order every other statement takes them in.
select b.id, b.need, b.open, (select kind = 2 from flowrun.jobs where jobs.id = b.id) as joins
from (select id from unnest($1::uuid[]) as u (id) order by id) u
cross join lateral (select id, need, open from flowrun.blocked where blocked.id = u.id for update) b
