-- Which of some jobs or flows were asked to stop.
--   $1 uuid[] ids
-- Result: id, reason, actor, harmless, and whether it is a flow: then its end is no job that stops.
select c.id, c.reason, c.actor, c.harmless, j.kind = 1 as is_flow
from unnest($1::uuid[]) as u (id)
cross join lateral (select * from flowrun.cancels where cancels.id = u.id offset 0) c
cross join lateral (select kind from flowrun.jobs where jobs.id = u.id offset 0) j
